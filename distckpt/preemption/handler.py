"""`handle_preemption`: after SIGTERM on any worker, all save the same step and end cleanly.

TensorFlow's `PreemptionCheckpointHandler` lets the workers agree on the step, and saves through our
manager. This module adds a time budget (a save that cannot end in time is not begun) and exit
codes, and ends the process even if a collective hangs in the main thread, where Python then cannot
call signal handlers.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import tensorflow as tf

from distckpt import arguments, exit_codes
from distckpt.core import tf_config
from distckpt.errors import ConfigurationError, SaveFailedError, UnsupportedOptionError
from distckpt.manager.checkpoint_manager import CheckpointManager
from distckpt.preemption import grace_period
from distckpt.runtime import signals
from distckpt.runtime.time_limit import TimeLimit

_log = logging.getLogger("distckpt")


def handle_preemption(
    manager: CheckpointManager,
    *,
    grace_seconds: float | None = None,
    termination_watcher: Callable[[], bool] | None = None,
) -> tf.distribute.experimental.PreemptionCheckpointHandler:
    """Sets up TensorFlow's `PreemptionCheckpointHandler` with `manager`. Every worker, same point.

    Call this instead of ``manager.restore_or_initialize()``: the handler restores, because it keeps
    its own counter in the checkpoint. The restored checkpoint is ``manager.latest_checkpoint``, or
    None.

      ```python
      handler = distckpt.handle_preemption(manager)
      while step < steps:
        train_step()
        step.assign_add(1)
        handler.save_checkpoint_if_preempted()
      ```

    When any worker gets SIGTERM, all workers save the same step, one or two steps later, and exit
    with code 75 (`exit_codes.PREEMPTED`). If there is no time, or the save fails, they exit with 76
    (`exit_codes.PREEMPTED_UNSAVED`), and the log names the checkpoint from which the job will
    resume. An asynchronous save in flight is finished first.

    Args:
      manager: The manager, under `MultiWorkerMirroredStrategy` or in a single process.
      grace_seconds: Seconds between SIGTERM and the end of a worker, e.g. Kubernetes'
        ``terminationGracePeriodSeconds``. A save begins only if the time left is at least one and a
        half times the longest of the last three saves, plus a second. Default: the environment
        variable ``DISTCKPT_GRACE_SECONDS``; without it there is no budget.
      termination_watcher: Called about once a second, instead of listening for SIGTERM; returns
        True when this worker is about to be ended (a maintenance notice).

    Returns:
      TensorFlow's handler. After each step, every worker calls ``save_checkpoint_if_preempted``,
      whose arguments, e.g. ``checkpoint_number``, go to ``manager.save``; or ``run`` does the step.

    Raises:
      ConfigurationError: `manager` is not a `CheckpointManager`, `grace_seconds` makes no sense, or
        this is not the main thread and there is no `termination_watcher`.
      UnsupportedOptionError: The job has parameter servers, or workers without a TensorFlow
        cluster.
      DistckptError: As from ``restore_or_initialize``.
    """
    arguments.refuse_others("manager", manager, CheckpointManager)
    if termination_watcher is None:
        _check_thread()
    notice = _Notice(grace_period.find(grace_seconds), manager.longest_wait, manager.preempted)
    return _handler(manager, notice, termination_watcher)


def _handler(
    manager: CheckpointManager, notice: _Notice, watcher: Callable[[], bool] | None
) -> tf.distribute.experimental.PreemptionCheckpointHandler:
    """Returns TensorFlow's handler; without a watcher, `notice` listens for SIGTERM, too."""
    before = signal.getsignal(signal.SIGTERM)
    end = _End(manager, notice)
    handler = tf.distribute.experimental.PreemptionCheckpointHandler(
        _resolver(manager),
        manager,
        termination_config=tf.distribute.experimental.TerminationConfig(
            termination_watcher_fn=notice.of(watcher) if watcher else None,
            exit_fn=end.exit,
            save_fn=end.save,
        ),
    )
    if watcher is None:
        notice.listen(before)
    return handler


class _Notice:
    """Records when this worker was preempted, and ensures that it ends.

    Args:
      grace: Seconds from the preemption to the end; None if unknown.
      longest: Seconds after which the worker ends if `grace` is unknown, even if it hangs.
      told: Called with `grace` at the preemption.
    """

    def __init__(
        self,
        grace: float | None,
        longest: float,
        told: Callable[[float | None], None] = lambda grace: None,
    ) -> None:
        self._grace = grace
        self._longest = longest
        self._told = told
        self._at: float | None = None
        self._once = threading.Lock()
        self._limit = TimeLimit()

    @property
    def left(self) -> float | None:
        """Seconds that this worker has left; None if it is not preempted, or this is unknown."""
        if self._at is None or self._grace is None:
            return None
        return self._at + self._grace - time.monotonic()

    def listen(self, before: Any) -> None:
        """Handles SIGTERM, then calls the handler that TensorFlow has installed.

        Args:
          before: The handler before TensorFlow's. Forked children, which are not workers, get it.
        """
        inner = signal.getsignal(signal.SIGTERM)

        def note(number: int, frame: FrameType | None) -> None:
            self.take()
            if callable(inner):
                inner(number, frame)

        signals.listen(signal.SIGTERM, note, self.take, before or signal.SIG_DFL)

    def of(self, watcher: Callable[[], bool]) -> Callable[[], bool]:
        """Returns a function that calls `watcher` and records a preemption if it returns True."""

        def watch() -> bool:
            told = bool(watcher())
            if told:
                self.take()
            return told

        return watch

    def take(self) -> None:
        """Records the preemption of this worker. From any thread, also in a signal handler."""
        if not self._once.acquire(blocking=False):
            return
        self._at = time.monotonic()
        seconds = self._longest if self._grace is None else self._grace
        # This comes first, because the rest may wait for a lock that a hanging thread holds.
        self._limit.set(seconds, lambda: _last_words(seconds), exit_codes.PREEMPTED_UNSAVED)
        _log.warning("This worker is preempted; all workers save the next step or the one after.")
        self._told(self._grace)

    def heeded(self) -> None:
        """Lifts the time limit: the worker ends by itself."""
        self._limit.lift()


def _last_words(seconds: float) -> None:
    """Logs why this worker ends: TensorFlow's handler waits for the others without a deadline."""
    _log.critical(
        "This worker was preempted %g s ago, but the other workers have not come to save with it. "
        "This worker ends; the job resumes from the last checkpoint.",
        seconds,
    )
    logging.shutdown()


class _End:
    """The functions that TensorFlow's handler calls at the agreed step, on every worker.

    Args:
      manager: The manager.
      notice: When this worker was preempted, if it was.
    """

    def __init__(self, manager: CheckpointManager, notice: _Notice) -> None:
        self._manager = manager
        self._notice = notice
        self._code = exit_codes.PREEMPTED_UNSAVED

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves, if there is time. The arguments go to ``manager.save``."""
        self._finish_previous()
        if not self._manager.has_time_to_save(self._notice.left):
            _log.warning("There is no time left to save. %s", self._resume())
            return
        if len(args) < 2:
            kwargs.setdefault("check_interval", False)
        try:
            self._manager.save(*args, **kwargs)
            self._manager.sync()
        except SaveFailedError as error:
            _log.error("The save before the end has failed: %s %s", error, self._resume())
        else:
            self._code = exit_codes.PREEMPTED
            _log.warning("All workers have saved; this one ends. %s", self._resume())

    def exit(self) -> None:
        """Ends this process."""
        self._manager.leave()
        self._notice.heeded()
        sys.exit(self._code)

    def _finish_previous(self) -> None:
        try:
            self._manager.sync()
        except SaveFailedError as error:
            _log.error("%s", error)

    def _resume(self) -> str:
        latest = self._manager.latest_checkpoint
        return f"The job resumes from {latest}." if latest else "The job starts from the beginning."


def _check_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "handle_preemption listens for SIGTERM, which Python allows only in the main thread. "
            "Call it there, or give it a termination_watcher."
        )


def _resolver(manager: CheckpointManager) -> Any:
    """Returns the cluster resolver for TensorFlow's handler; None in a single process."""
    config = tf_config.of(os.environ)
    if config.has_parameter_servers:
        raise UnsupportedOptionError(
            "handle_preemption does not work with parameter servers: their workers have no way to "
            "agree on a step."
        )
    if manager.worker_count == 1:
        return None
    if not config.cluster:
        raise UnsupportedOptionError(
            "handle_preemption needs TensorFlow's coordination service, through which the "
            f"{manager.worker_count} workers agree on a step. There is none: use "
            "MultiWorkerMirroredStrategy."
        )
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()
