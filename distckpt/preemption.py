"""`handle_preemption`: SIGTERM on any worker leads to one save by all of one step, and a clean end.

Which step that is, TensorFlow's own `PreemptionCheckpointHandler` lets the workers agree upon; it
saves by way of our manager. Added here are a budget (a save that cannot end in time is not begun),
exit codes, and an end that comes, whatever hangs.
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

from distckpt import exit_codes
from distckpt.coordination import tf_config
from distckpt.errors import ConfigurationError, SaveFailedError, UnsupportedOptionError
from distckpt.manager import CheckpointManager

_log = logging.getLogger("distckpt")
_VARIABLE = "DISTCKPT_GRACE_SECONDS"


def handle_preemption(
    manager: CheckpointManager,
    *,
    grace_seconds: float | None = None,
    termination_watcher: Callable[[], bool] | None = None,
) -> tf.distribute.experimental.PreemptionCheckpointHandler:
    """Sets up TensorFlow's `PreemptionCheckpointHandler` with `manager`. Every worker, same point.

    Call it in place of ``manager.restore_or_initialize()``: the handler does that, since it keeps a
    count of its own in the checkpoint; ``manager.latest_checkpoint`` is what was restored, or None.

      ```python
      handler = distckpt.handle_preemption(manager)
      while step < steps:
        train_step()
        step.assign_add(1)
        handler.save_checkpoint_if_preempted()
      ```

    When any worker gets SIGTERM, all save the same step, one or two steps later, and exit with code
    75 (`exit_codes.PREEMPTED`). If there is no time for that, or the save fails, they exit with 76
    (`exit_codes.PREEMPTED_UNSAVED`), and the log names the checkpoint that the job will resume
    from. An asynchronous save in flight is landed first.

    Args:
      manager: The manager, under `MultiWorkerMirroredStrategy` or in a single process.
      grace_seconds: How long a worker has between SIGTERM and its end, in seconds: Kubernetes'
        ``terminationGracePeriodSeconds``. A save is begun only if one and a half times the longest
        of the last three saves, and a second, are left. Default: the environment variable
        ``DISTCKPT_GRACE_SECONDS``; without it there is no budget.
      termination_watcher: Called about once a second, instead of listening for SIGTERM; returns
        True when this worker is about to be ended (a maintenance notice).

    Returns:
      TensorFlow's handler. Call its ``save_checkpoint_if_preempted`` after each step, on every
      worker; what it is given goes to ``manager.save``, e.g. ``checkpoint_number``. Or let it
      ``run`` the steps.

    Raises:
      ConfigurationError: `manager` is not a `CheckpointManager`, or `grace_seconds` makes no sense.
      UnsupportedOptionError: The job has parameter servers, or workers without a TensorFlow
        cluster.
      DistckptError: What ``restore_or_initialize`` raises.
    """
    if not isinstance(manager, CheckpointManager):
        raise ConfigurationError(
            f"manager must be a distckpt.CheckpointManager, got {type(manager).__name__}."
        )
    notice = _Notice(_grace(grace_seconds), manager.longest_wait, manager.told_to_end)
    end = _End(manager, notice)
    handler = tf.distribute.experimental.PreemptionCheckpointHandler(
        _resolver(manager),
        manager,
        termination_config=tf.distribute.experimental.TerminationConfig(
            termination_watcher_fn=notice.of(termination_watcher) if termination_watcher else None,
            exit_fn=end.exit,
            save_fn=end.save,
        ),
    )
    if termination_watcher is None:
        notice.listen()
    return handler


class _Notice:
    """Knows when this worker was told to end, and sees to it that it does.

    Args:
      grace: Seconds it has from then on; None if that is not known.
      longest: Seconds after which it ends in that case, whatever hangs.
      told: Called with `grace` when it is told to end.
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
        self._timer: threading.Timer | None = None

    @property
    def left(self) -> float | None:
        """Seconds that this worker has left; None if it was not told to end, or nobody knows."""
        if self._at is None or self._grace is None:
            return None
        return self._at + self._grace - time.monotonic()

    def listen(self) -> None:
        """Takes note of SIGTERM, before the handler that TensorFlow has installed."""
        inner = signal.getsignal(signal.SIGTERM)

        def note(number: int, frame: FrameType | None) -> None:
            self.take()
            if callable(inner):
                inner(number, frame)

        signal.signal(signal.SIGTERM, note)

    def of(self, watcher: Callable[[], bool]) -> Callable[[], bool]:
        """Returns `watcher`, which takes note when it says yes."""

        def watch() -> bool:
            told = bool(watcher())
            if told:
                self.take()
            return told

        return watch

    def take(self) -> None:
        """This worker has been told to end."""
        if self._at is not None:
            return
        self._at = time.monotonic()
        seconds = self._longest if self._grace is None else self._grace
        _log.warning("This worker was told to end; all save the next step or the one after it.")
        self._timer = threading.Timer(seconds, self._give_up, [seconds])
        self._timer.daemon, self._timer.name = True, "distckpt grace"
        self._timer.start()
        self._told(self._grace)

    def heeded(self) -> None:
        """What was to be done has been done."""
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self, seconds: float) -> None:
        """TensorFlow's handler waits for the other workers without a deadline."""
        _log.critical(
            "This worker was told to end %g s ago, and the others have not come to save with it. "
            "It ends; the job resumes from the last checkpoint.",
            seconds,
        )
        logging.shutdown()
        os._exit(exit_codes.PREEMPTED_UNSAVED)


class _End:
    """What TensorFlow's handler is given to do at the agreed step, on every worker.

    Args:
      manager: The manager.
      notice: When this worker was told to end, if it was.
    """

    def __init__(self, manager: CheckpointManager, notice: _Notice) -> None:
        self._manager = manager
        self._notice = notice
        self._code = exit_codes.PREEMPTED_UNSAVED

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves, if there is time. What is given goes to ``manager.save``."""
        self._land()
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

    def _land(self) -> None:
        try:
            self._manager.sync()
        except SaveFailedError as error:
            _log.error("%s", error)

    def _resume(self) -> str:
        latest = self._manager.latest_checkpoint
        return f"The job resumes from {latest}." if latest else "The job begins anew."


def _grace(given: float | None) -> float | None:
    text = os.environ.get(_VARIABLE, "").strip()
    if given is None and not text:
        return None
    name, value = ("grace_seconds", given) if given is not None else (_VARIABLE, text)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise ConfigurationError(f"{name} must be a positive number of seconds, got {value!r}.")
    return seconds


def _resolver(manager: CheckpointManager) -> Any:
    """Returns what tells TensorFlow's handler who is who; None in a single process."""
    cluster = tf_config.read().get("cluster") or {}
    if "ps" in cluster:
        raise UnsupportedOptionError(
            "handle_preemption does not work with parameter servers: nothing lets their workers "
            "agree on a step."
        )
    if manager.worker_count == 1:
        return None
    if not cluster:
        raise UnsupportedOptionError(
            f"handle_preemption lets the {manager.worker_count} workers agree on a step by "
            "TensorFlow's coordination service, and there is none: use MultiWorkerMirroredStrategy."
        )
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()
