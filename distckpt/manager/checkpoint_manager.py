"""`CheckpointManager`: `tf.train.CheckpointManager` for workers that share the writing.

The class has the public methods and their documentation; `Operations` and `Ending` do the work.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import tensorflow as tf

from distckpt.calls.save_request import Condition
from distckpt.calls.save_schedule import SaveSchedule
from distckpt.coordination.base import Coordinator
from distckpt.manager import construction
from distckpt.manager.ending import Ending
from distckpt.manager.operations import Operations
from distckpt.manager.restore_wiring import Restoring
from distckpt.manager.save_wiring import Saving
from distckpt.options import ManagerOptions
from distckpt.runtime import portable, uncopyable
from distckpt.state.numbering import evaluate
from distckpt.storage.choose import storage_for

_log = logging.getLogger("distckpt")


class CheckpointManager(tf.train.CheckpointManager):  # type: ignore[misc]
    """Saves and keeps checkpoints of a job of one or more workers.

    A drop-in replacement for `tf.train.CheckpointManager`, with the same arguments, meaning and
    files. Under `tf.distribute.MultiWorkerMirroredStrategy` every worker constructs a manager with
    the same arguments and calls the same methods at the same points of the program. Each worker
    writes its share of the bytes, and the chief commits a plain TensorFlow checkpoint.

    Example:
      ```python
      checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step)
      manager = distckpt.CheckpointManager(checkpoint, "/shared/run-1", max_to_keep=3)
      manager.restore_or_initialize()
      while step < steps:
        train_step()
        if step % 100 == 0:
          manager.save()
      ```

    Constructing a manager, restoring and listing never write to the directory. A manager belongs to
    the process that made it: in a forked child, all methods that need the other workers or write
    raise ConfigurationError.

    Args:
      checkpoint: The `tf.train.Checkpoint` to save and restore.
      directory: The directory of the checkpoints: a path or `os.PathLike` on a file system that
        all workers share, or a URL that TensorFlow can write to. It need not exist. A relative path
        keeps its meaning when the working directory changes.
      max_to_keep: How many checkpoints to keep; None for all.
      keep_checkpoint_every_n_hours: Of checkpoints that would be deleted, keep one every n hours.
      checkpoint_name: How the names of checkpoints begin.
      step_counter: A `tf.Variable` with the current step; needed with `checkpoint_interval`, and
        recorded in the manifest.
      checkpoint_interval: The minimum number of steps between two checkpoints.
      init_fn: Called by `restore_or_initialize` if there is no checkpoint.
      last_checkpoint_step: The step of the last checkpoint; `checkpoint_interval` counts from it.
      worker_checkpoint: A `tf.train.Checkpoint` of what only this worker has: its input iterator,
        its random generator. Each worker saves and restores its own, as part of the same commit.
        Give it on all workers or on none. `ManagerOptions.worker_state_on_resize` says what happens
        if the number of workers changes.
      coordinator: How the workers communicate. Default: the coordination service of
        `MultiWorkerMirroredStrategy`, or none for a single process.
      options: A `distckpt.ManagerOptions`.

    Raises:
      ValueError: As in `tf.train.CheckpointManager`: `max_to_keep` is not positive, or
        `checkpoint_interval` is given without `step_counter`.
      ConfigurationError: (also a ValueError) `checkpoint_name` is not a plain name, TensorFlow
        cannot restore from this path, the directory exists but cannot be read, or an argument is
        of the wrong kind.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: str | os.PathLike[str],
        max_to_keep: int | None,
        keep_checkpoint_every_n_hours: float | None = None,
        checkpoint_name: str = "ckpt",
        step_counter: tf.Variable | None = None,
        checkpoint_interval: int | None = None,
        init_fn: Any = None,
        last_checkpoint_step: int | None = None,
        *,
        worker_checkpoint: tf.train.Checkpoint | None = None,
        coordinator: Coordinator | None = None,
        options: ManagerOptions | None = None,
    ) -> None:
        directory = os.fspath(directory)
        options = ManagerOptions() if options is None else options
        construction.check(directory, checkpoint_name, options)
        path = portable.absolute(directory)
        storage = storage_for(path)
        with construction.allow_damage(directory, max_to_keep, checkpoint_interval, step_counter):
            super().__init__(
                checkpoint,
                directory,
                max_to_keep,
                keep_checkpoint_every_n_hours,
                checkpoint_name,
                step_counter,
                checkpoint_interval,
                init_fn,
            )  # without last_checkpoint_step, which TensorFlow knows from 2.20 on: see SaveSchedule
        self._initialize = init_fn
        own = construction.own_state(worker_checkpoint, options)
        steps = (lambda: evaluate(step_counter)) if step_counter is not None else None
        self._schedule = SaveSchedule(
            steps, checkpoint_interval, options.save_policy, last_checkpoint_step
        )
        self._common = common = construction.common(
            coordinator, storage, path, options, max_to_keep, keep_checkpoint_every_n_hours
        )
        saving = Saving(common, checkpoint, own, step_counter, self._path)
        restoring = Restoring(common, checkpoint, own)
        self._operations = Operations(common, self._schedule, saving, restoring, checkpoint_name)
        self._ending = Ending(common)
        common.job.register()  # last: a manager whose constructor raises is not counted

    # --- Directory and checkpoints --------------------------------------------------------------

    @property
    def directory(self) -> str:
        """The directory as it was given.

        A relative path becomes absolute when the working directory has changed.
        """
        return portable.shown(super().directory, self._common.directory)

    @property
    def latest_checkpoint(self) -> str | None:
        """The path of the newest committed checkpoint, or None. Any process."""
        return self._path(self._common.managed.latest) if self._common.managed.latest else None

    @property
    def checkpoints(self) -> list[str]:
        """The paths of the managed checkpoints, oldest first; committed ones only. Any process.

        As in TensorFlow, those kept by ``keep_checkpoint_every_n_hours`` are not among them.
        """
        return [self._path(kept.name) for kept in self._common.managed.active]

    @property
    def skipped_saves(self) -> int:
        """How many calls of ``save()`` saved nothing because a save was in flight.

        This happens only with ``ManagerOptions(when_busy="skip")``. The same on every worker.
        """
        return self._schedule.skipped

    # --- Saving ---------------------------------------------------------------------------------

    def save(
        self,
        checkpoint_number: Any = None,
        check_interval: bool = True,
        options: tf.train.CheckpointOptions | None = None,
        *,
        metrics: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Saves a checkpoint. Every worker, at the same point of the program.

        Returns when the checkpoint is committed; with ``enable_async``, as soon as the state is
        held: the rest is done in the background. After an error, even if only this worker raises
        it, nothing is left of the attempt, the last checkpoint is unchanged, and the manager can be
        used again. The error may be that of the previous asynchronous save, unless `sync` has
        raised it. Then this call has saved nothing: call again. Calls from several threads take
        turns.

        Args:
          checkpoint_number: The number in the checkpoint's name: an integer, an integer variable or
            tensor. Default: ``checkpoint.save_counter``, which is incremented in any case.
          check_interval: Whether to save only if ``checkpoint_interval`` has passed and the save
            policy says yes. If False, save unless ``checkpoint_interval`` is set and this step was
            already saved.
          options: `tf.train.CheckpointOptions`. With ``enable_async`` this save is asynchronous.
            Write callbacks are called after the commit, on every worker; for an asynchronous save,
            on the background thread. Their errors are logged.
          metrics: How good the checkpoint is: numbers or scalar tensors, e.g. {"val_loss": 0.3}.
            The manifest records the chief's values, for `distckpt.keep.Best` and ``distckpt ls``.

        Returns:
          The path that the checkpoint has or will have, the same on every worker; None if the
          interval, the save policy or a save in flight (``when_busy="skip"``) said no.

        Raises:
          SaveFailedError: Not committed; save again. `StorageFullError` if a disk is full.
          DeadlineExceededError: Some worker did not come in time; the text names it.
          WorkerLostError: Some worker died.
          CommitUnknownError: The chief died or took too long, so nobody knows whether it has
            committed. The next call finds out; if it is at the same step, it returns that path.
          SupersededError: Another process has taken over the directory since this one saved or
            restored there.
          ReplicaMismatchError: The workers' copies of mirrored values differ; only with
            ``ManagerOptions(check_replicas="error")``.
          ConfigurationError: The workers' states, steps, numbers or directories differ
            (`StateMismatchError`), the directory cannot be used, `options` cannot be honoured, or
            the manager was called from one of its own callbacks.
          RuntimeError: Called within a `tf.function`, where variables have no values.
        """
        name = self._operations.save(checkpoint_number, check_interval, options, metrics)
        return self._path(name) if name is not None else None

    def _save_if(
        self,
        condition: Condition,
        *,
        check_interval: bool = True,
        metrics: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Like `save`, but only if the chief's `condition` also holds. Every worker passes one."""
        name = self._operations.save(None, check_interval, None, metrics, condition)
        return self._path(name) if name is not None else None

    def sync(self) -> None:
        """Waits until the asynchronous save in flight, if there is one, is committed.

        Every worker, at the same point of the program.

        Raises:
          DistckptError: The save failed; see `save`. Each failure is raised once.
        """
        self._operations.sync()

    def agree_on(self, value: Any) -> Any:
        """Returns the chief's `value` on every worker. Every worker, at the same point.

        For decisions that only the chief should make, because the workers may see different values:
        a clock, a metric of their own share of the data, whether to stop. Each worker counts its
        calls: if one skips a call, each of its later calls gets the answer to the chief's previous
        call.

        Args:
          value: This worker's own answer; anything that JSON can hold.

        Raises:
          DeadlineExceededError: The chief never came, or another worker is far behind.
          WorkerLostError: The chief or that other worker died.
          ConfigurationError: JSON cannot hold the chief's value.
          TypeError: JSON cannot hold this worker's value.
        """
        return self._operations.agree_on(value)

    # --- Ending -------------------------------------------------------------------------------

    @property
    def worker_count(self) -> int:
        """How many workers share the saving."""
        return self._common.job.coordinator.count

    @property
    def longest_wait(self) -> float:
        """After how many seconds a save stops waiting, even for slow workers."""
        patience = self._common.patience
        return patience.limit + patience.grace

    def has_time_to_save(self, seconds_left: float | None) -> bool:
        """Returns whether a save is likely to end in time, with the same answer on all workers.

        Every worker, at the same point. It assumes that a save takes as long as the longest save of
        the last three managed checkpoints, according to their manifests.

        Args:
          seconds_left: Seconds until this worker ends; None if it is not preempted, or if the time
            is unknown.

        Raises:
          CoordinationError: Some worker did not come, or died.
        """
        return self._ending.has_time_to_save(seconds_left)

    def preempted(self, seconds_left: float | None) -> None:
        """Tells the listeners that this worker is preempted. Also in a signal handler."""
        self._ending.preempted(seconds_left)

    def leave(self) -> None:
        """Tells the other workers that this one is about to end. Every worker, same point.

        The coordination service runs on the chief. So the chief returns only when the other
        workers have called this, too, or after a few seconds: they can still learn how their last
        save ended.
        """
        self._ending.leave()

    # --- Restoring ------------------------------------------------------------------------------

    def restore_or_initialize(self) -> str | None:
        """Restores the newest good checkpoint, or calls ``init_fn``. Every worker, same point.

        The chief proposes a checkpoint, and all workers restore that one. If it is damaged, all
        fall back to the previous one, and the log says why. Nothing is restored before all bytes
        have been checked (`ManagerOptions.verify_on_restore`).

        Returns:
          The path of the checkpoint, the same on every worker; None if there is none.

        Raises:
          RestoreError: There are checkpoints, but none can be restored, or the newest good one has
            less of the program's state than `ManagerOptions.require_match` requires.
          DeadlineExceededError: Some worker did not come in time; the text names it.
          WorkerLostError: Some worker died.
          ConfigurationError: The workers see different directories.
          RuntimeError: Called within a `tf.function`.
        """
        name = self._operations.restore()
        if name is not None:
            return self._path(name)
        if self._initialize is not None:
            self._initialize()
            _log.info("There is no checkpoint in %s; init_fn was called.", self._common.directory)
        return None

    # --- Representation and context -------------------------------------------------------------

    def __repr__(self) -> str:
        """Returns the directory and a summary of its checkpoints."""
        newest = self._common.managed.latest or "none"
        count = len(self._common.managed.active)
        return f"<distckpt.CheckpointManager {self.directory!r}: {count} managed, newest {newest}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuses to be copied or pickled."""
        uncopyable.refuse(self)

    def __enter__(self) -> CheckpointManager:
        """Returns the manager."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits for the save in flight. An error of the body takes precedence over the save's."""
        try:
            if error is None and self._common.process.is_current:
                self.sync()
            else:
                self._operations.background.wait()
        finally:
            self._common.job.emit.flush()

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)
