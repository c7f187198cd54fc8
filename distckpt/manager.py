"""`CheckpointManager`: `tf.train.CheckpointManager` for workers that share the writing.

A façade: it numbers, captures, and hands over to the roles.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from distckpt import arguments, portable
from distckpt.coordination.base import Coordinator
from distckpt.core import layout
from distckpt.errors import DistckptError
from distckpt.events import SaveSkipped
from distckpt.options import ManagerOptions
from distckpt.roles.flight import Flight
from distckpt.roles.recorder import Label
from distckpt.state.numbering import SaveCounter, step_or
from distckpt.state.save_options import asks_for_async, call_back
from distckpt.state.worker_state import WorkerState
from distckpt.storage.choose import storage_for
from distckpt.wiring import parts
from distckpt.wiring.common import Common
from distckpt.wiring.ending import Ending
from distckpt.wiring.job import Job
from distckpt.wiring.restoring import Restoring
from distckpt.wiring.saving import Saving

_log = logging.getLogger("distckpt")


class CheckpointManager(tf.train.CheckpointManager):  # type: ignore[misc]
    """Saves and keeps checkpoints of a job of one or more workers.

    A drop-in for `tf.train.CheckpointManager`: the same arguments, meaning and files.
    Under `tf.distribute.MultiWorkerMirroredStrategy` every worker constructs one with the same
    arguments and calls the same methods at the same points of the program; each then writes its
    share of the bytes, and the chief commits. What is written is a plain TensorFlow checkpoint.

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

    Constructing a manager, restoring and listing never write to the directory.

    Args:
      checkpoint: The `tf.train.Checkpoint` to save and restore.
      directory: Where; a path or `os.PathLike`, on a file system that all workers share, or a
        URL that TensorFlow can write to. It need not exist.
      max_to_keep: How many checkpoints to keep; None for all.
      keep_checkpoint_every_n_hours: Of those that would be deleted, keep one every so many hours.
      checkpoint_name: How the names of checkpoints begin.
      step_counter: A `tf.Variable` with the current step; needed with `checkpoint_interval`, and
        recorded in the manifest.
      checkpoint_interval: The least number of steps between two checkpoints.
      init_fn: Called by `restore_or_initialize` if there is no checkpoint.
      last_checkpoint_step: The step of the last checkpoint, as a start for `checkpoint_interval`.
      worker_checkpoint: A `tf.train.Checkpoint` of what only this worker has: its input iterator,
        its random generator. Each worker writes its own, under the same commit, and gets it back.
        On all workers, or on none. When their number changes:
        `ManagerOptions.worker_state_on_resize`.
      coordinator: How the workers talk to each other. Default: found from the job: the coordination
        service of `MultiWorkerMirroredStrategy`, or none for a single process.
      options: A `distckpt.ManagerOptions`.

    Raises:
      ValueError: As `tf.train.CheckpointManager`: `max_to_keep` is not positive, or
        `checkpoint_interval` is given without `step_counter`.
      ConfigurationError: (also a ValueError) `checkpoint_name` is not a plain name, or TensorFlow
        could not restore from such a path, or the directory exists and cannot be read, or an
        argument is of the wrong kind.
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
        layout.check_checkpoint_name(checkpoint_name)
        arguments.refuse_patterns(layout.join(portable.slashes(directory), checkpoint_name))
        if options is not None:
            arguments.refuse_others("options", options, ManagerOptions)
        self._options = options or ManagerOptions()
        self._directory_path = portable.absolute(directory)
        self._storage = storage_for(self._directory_path)
        self._init_base(
            checkpoint,
            directory,
            max_to_keep,
            keep_checkpoint_every_n_hours,
            checkpoint_name,
            step_counter,
            checkpoint_interval,
            init_fn,
            last_checkpoint_step,
        )
        self._name = checkpoint_name
        self._initialize = init_fn
        self._steps = step_counter
        self._counter = SaveCounter(checkpoint)
        self._flight = Flight()
        own = parts.own_state(worker_checkpoint, self._options)
        self._pace = parts.pace(
            step_counter, checkpoint_interval, last_checkpoint_step, self._options
        )
        self._job = Job(coordinator, self._directory_path, self._options)
        self._books = parts.books(
            self._storage,
            self._directory_path,
            max_to_keep,
            keep_checkpoint_every_n_hours,
            self._options,
        )
        self._wire(checkpoint, own)

    # --- What is there --------------------------------------------------------------------------

    @property
    def latest_checkpoint(self) -> str | None:
        """The path of the newest committed checkpoint, or None. Any process."""
        return self._path(self._books.latest) if self._books.latest else None

    @property
    def checkpoints(self) -> list[str]:
        """The paths of the managed checkpoints, oldest first; committed ones only. Any process.

        As in TensorFlow, those kept by ``keep_checkpoint_every_n_hours`` are not among them.
        """
        return [self._path(kept.name) for kept in self._books.active]

    @property
    def skipped_saves(self) -> int:
        """How many calls of ``save()`` saved nothing because a save was in flight.

        Only with ``ManagerOptions(when_busy="skip")``. The same on every worker.
        """
        return self._pace.skipped

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

        Returns when the checkpoint is committed; with ``enable_async`` as soon as the state is
        held, and the rest is done in the background. After an error nothing of the attempt is left,
        the last checkpoint stands, and the manager can be used again. The error may be about the
        asynchronous save before, unless `sync` has raised it; then this call has saved nothing, and
        is to be made again.

        Args:
          checkpoint_number: The number in the checkpoint's name: an integer, an integer variable or
            tensor. Default: ``checkpoint.save_counter``, which is incremented in any case.
          check_interval: Whether to save only if ``checkpoint_interval`` has passed and the save
            policy says yes. If False, save unless the interval's very step has been saved.
          options: `tf.train.CheckpointOptions`. With ``enable_async`` this save is asynchronous.
            Write callbacks are called after the commit, on every worker; of an asynchronous save
            on the thread in the background.
          metrics: Numbers that tell how good the checkpoint is, {"val_loss": 0.3}: Python's,
            NumPy's or scalar tensors. The chief's are written into the manifest, for
            `distckpt.keep.Best` and ``distckpt ls``.

        Returns:
          The path that the checkpoint has, or will have, the same on every worker; None if the
          interval, the save policy or a save in flight (``when_busy="skip"``) said no.

        Raises:
          SaveFailedError: Not committed; save again. `StorageFullError` if a disk is full.
          DeadlineExceededError: Some worker did not come in time; the text names it.
          WorkerLostError: Some worker died.
          CommitUnknownError: The chief died and nobody knows whether it had committed.
          SupersededError: Another process has taken over the directory.
          ReplicaMismatchError: What all workers should hold alike differs between them; only with
            ``ManagerOptions(check_replicas="error")``.
          ConfigurationError: The workers' states, numbers or directories differ, the directory
            cannot be used, or `options` cannot be honoured.
        """
        numbers = arguments.metrics(metrics)
        in_background = self._options.enable_async or asks_for_async(options)
        self._job.connect()
        try:
            if not self._is_due(check_interval, in_background):
                return None
            self.sync()
            name = layout.numbered_name(self._name, self._counter.advance(checkpoint_number))
            path, flight = self._path(name), self._flight if in_background else None
            label = self._label(name, numbers)
            self._saving.save(name, label, options, lambda: call_back(options, path), flight)
            self._pace.begun(in_flight=self._flight.busy)
        finally:
            self._pace.returned()
        return path

    def sync(self) -> None:
        """Waits until the asynchronous save in flight, if there is one, is committed.

        Every worker, at the same point of the program.

        Raises:
          DistckptError: It failed; see `save`. Each failure is raised once.
        """
        try:
            self._flight.land()
        except DistckptError:
            self._pace.failed()
            raise

    def agree_on(self, value: Any) -> Any:
        """Returns the chief's `value` on every worker. Every worker, at the same point.

        For what only the chief should decide, because the workers may see it differently: a clock,
        a metric of their own share of the data, whether to stop.

        Args:
          value: What this worker would say; anything that JSON can hold.

        Raises:
          DeadlineExceededError: The chief never came.
          WorkerLostError: The chief died.
          TypeError: JSON cannot hold it.
        """
        text = json.dumps(value)
        return json.loads(self._job.connect()[1].word(lambda: text, "agree_on()"))

    def _is_due(self, check_interval: bool, in_background: bool) -> bool:
        skipped = self._pace.skipped
        is_due = self._pace.due(
            self._job.connect()[1],
            check=check_interval,
            in_flight=self._flight.busy,
            skip_when_busy=in_background and self._options.when_busy == "skip",
        )
        if self._pace.skipped > skipped:
            self._job.emit(SaveSkipped, skipped=self._pace.skipped)
        return is_due

    def _label(self, name: str, metrics: dict[str, float]) -> Label:
        number = layout.split_number(name)[1] or 0
        return Label(step_or(number, self._steps), metrics, self._books.rules)

    # --- Ending -------------------------------------------------------------------------------

    @property
    def worker_count(self) -> int:
        """How many workers share the saving."""
        return self._job.coordinator.count

    @property
    def longest_wait(self) -> float:
        """After how many seconds a save waits for nobody any more, however slow he is."""
        return self._ending.longest_wait

    def has_time_to_save(self, seconds_left: float | None) -> bool:
        """Returns whether a save is likely to end in time. Every worker, same point; same answer.

        A save takes as long as the longest of the last three that are listed, by their manifests.

        Args:
          seconds_left: Until this worker ends; None if it has not been told to.

        Raises:
          CoordinationError: Some worker did not come, or died.
        """
        return self._ending.has_time_to_save(seconds_left)

    def told_to_end(self, seconds_left: float | None) -> None:
        """Tells the listeners that this worker is about to end. Also in a signal handler."""
        self._ending.told_to_end(seconds_left)

    def leave(self) -> None:
        """Says that this worker is about to end. Every worker, same point.

        The chief, on which the coordination service runs, returns when the others have called it,
        too, or after a few seconds: so they still hear how their last save has ended.
        """
        self._ending.leave()

    # --- Restoring ------------------------------------------------------------------------------

    def restore_or_initialize(self) -> str | None:
        """Restores the newest good checkpoint, or calls ``init_fn``. Every worker, same point.

        All workers take the same one, as the chief proposes. If it is damaged, all fall back to the
        one before, and the log says why. Nothing is restored before all bytes have been checked
        (`ManagerOptions.verify_on_restore`).

        Returns:
          The path of the checkpoint, the same on every worker; None if there is none.

        Raises:
          RestoreError: There are checkpoints, but none that can be restored.
          DeadlineExceededError: Some worker did not come in time; the text names it.
          WorkerLostError: Some worker died.
          ConfigurationError: The workers see different directories.
        """
        self._job.connect()
        self._flight.wait()
        name = self._restoring.restore()
        if name is not None:
            self._pace.restored()
            return self._path(name)
        if self._initialize is not None:
            self._initialize()
            _log.info("There is no checkpoint in %s; init_fn was called.", self._directory_path)
        return None

    # --- Life -----------------------------------------------------------------------------------

    def __enter__(self) -> CheckpointManager:
        """Returns the manager."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits for the save in flight. An error of the body is not replaced by one of the save."""
        try:
            if error is None:
                self.sync()
            else:
                self._flight.wait()
        finally:
            self._job.emit.flush()

    def _init_base(self, checkpoint: Any, directory: str, max_to_keep: Any, *rest: Any) -> None:
        """Initialises the base class, which raises on bad arguments and reads `checkpoint`."""
        try:
            super().__init__(checkpoint, directory, max_to_keep, *rest)
        except ValueError:
            interval, steps = rest[3], rest[2]
            bad_count = max_to_keep is not None and max_to_keep <= 0
            if bad_count or (interval is not None and steps is None):
                raise
            # The file is damaged. The manifests say all that is needed, and so does our own state:
            # nothing of the base class's is used.
            _log.warning("The file `checkpoint` in %s is damaged.", directory)

    def _wire(self, checkpoint: tf.train.Checkpoint, own: WorkerState | None) -> None:
        """Gives the parts that save, restore and end what they share."""
        common = Common(
            job=self._job,
            storage=self._storage,
            directory=self._directory_path,
            books=self._books,
            options=self._options,
        )
        self._saving = Saving(common, checkpoint, own)
        self._restoring = Restoring(common, checkpoint, own, self._path)
        self._ending = Ending(common)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)
