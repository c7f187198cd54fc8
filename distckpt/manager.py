"""`CheckpointManager`: `tf.train.CheckpointManager` for workers that share the writing.

A façade: it numbers, captures, and hands over to the roles.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import tensorflow as tf

from distckpt import arguments, portable
from distckpt.coordination.base import Coordinator
from distckpt.coordination.choose import default_coordinator
from distckpt.core import layout
from distckpt.core.delays import Patience
from distckpt.core.replicas import Check
from distckpt.core.worker_states import WorkerStates
from distckpt.errors import DirectoryError, DistckptError
from distckpt.events import Preempted, SaveSkipped
from distckpt.options import ManagerOptions
from distckpt.roles import grace
from distckpt.roles.books import Books
from distckpt.roles.catalog import Catalog
from distckpt.roles.collector import paused
from distckpt.roles.committer import Committer
from distckpt.roles.emitter import Emitter
from distckpt.roles.flight import Flight
from distckpt.roles.keys import Keys
from distckpt.roles.ownership import ownership_of
from distckpt.roles.pace import Agreement, Pace
from distckpt.roles.patient import PatientReader
from distckpt.roles.pruner import Pruner
from distckpt.roles.recorder import Label
from distckpt.roles.restore import RestoreSession
from distckpt.roles.session import SaveSession
from distckpt.roles.story import Story
from distckpt.roles.withdrawal import withdraw
from distckpt.roles.writer import Writer
from distckpt.state.base import CapturedState
from distckpt.state.capture import Capture
from distckpt.state.numbering import SaveCounter, evaluate
from distckpt.state.restore import restore
from distckpt.state.save_options import asks_for_async, call_back
from distckpt.state.shards import BundleMerger
from distckpt.state.worker_state import WorkerState
from distckpt.storage.choose import storage_for

_log = logging.getLogger("distckpt")
# The managers of each coordinator, and of the job's own, are counted: by that number the workers
# know which of them a message is for.
_managers = itertools.count()
_managers_of: weakref.WeakKeyDictionary[Coordinator, Iterator[int]] = weakref.WeakKeyDictionary()
# Keys of this many calls are kept, for workers that are late to read them.
_KEPT_CALLS = 8


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
        self._target = checkpoint
        self._own: WorkerState | None = None
        if worker_checkpoint is not None:
            arguments.refuse_others("worker_checkpoint", worker_checkpoint, tf.train.Checkpoint)
            on_resize = self._options.worker_state_on_resize
            self._own = WorkerState(worker_checkpoint, on_resize)
        self._name = checkpoint_name
        self._initialize = init_fn
        self._steps = step_counter
        self._pace = Pace(
            (lambda: evaluate(step_counter)) if step_counter is not None else None,
            checkpoint_interval,
            self._options.save_policy,
            last_checkpoint_step,
        )
        self._agreement: Agreement | None = None
        self._counter = SaveCounter(checkpoint)
        self._coordinator = coordinator
        counter = _managers if coordinator is None else _count_of(coordinator)
        self._namespace = f"manager-{next(counter)}"
        self._calls: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        self._turns = itertools.count()
        self._old_keys: deque[Keys] = deque(maxlen=_KEPT_CALLS)
        try:
            self._books = Books(
                self._storage,
                self._directory_path,
                arguments.whole(max_to_keep),
                arguments.hours(keep_checkpoint_every_n_hours),
                durable=self._options.durable,
                keep=self._options.keep,
            )
        except OSError as error:
            raise DirectoryError(f"{directory} cannot be read: {error}.") from error
        self._committer: Committer | None = None
        self._capture: Capture | None = None
        self._flight = Flight()
        self._emit = Emitter()  # until it is known which worker this is

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
        coordinator, agreement = self._connect()
        skipped = self._pace.skipped
        try:
            if not self._pace.due(
                agreement,
                check=check_interval,
                in_flight=self._flight.busy,
                skip_when_busy=in_background and self._options.when_busy == "skip",
            ):
                if self._pace.skipped > skipped:
                    self._emit(SaveSkipped, skipped=self._pace.skipped)
                return None
            self.sync()
            name = layout.numbered_name(self._name, self._counter.advance(checkpoint_number))
            self._save(coordinator, name, options, in_background, numbers)
            self._pace.begun(in_flight=self._flight.busy)
        finally:
            self._pace.returned()
        return self._path(name)

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
        return json.loads(self._connect()[1].word(lambda: text, "agree_on()"))

    def _save(
        self,
        coordinator: Coordinator,
        name: str,
        options: tf.train.CheckpointOptions | None,
        in_background: bool,
        metrics: dict[str, float],
    ) -> None:
        keys = Keys(self._namespace, "save", next(self._calls["save"]))
        agreement = self._connect()[1]
        asked = agreement.asked
        story = Story(name, self._label(name, metrics), self._emit)
        try:
            state, session = self._hold(coordinator, keys, story, name, options)
        except Exception as error:
            story.failed(error)
            raise
        session.hold()

        def finish() -> None:
            if coordinator.is_chief and len(self._old_keys) == _KEPT_CALLS:
                coordinator.forget(self._old_keys[0].all(coordinator.count))
            self._old_keys.append(keys)
            outcome = session.run()
            if coordinator.is_chief:
                agreement.forget(asked)
            else:
                self._books.adopt(outcome)
            call_back(options, self._path(name))

        if in_background and state.held:
            self._flight.start(finish, f"save() of {name}")
            story.resumed()
            return
        if in_background:
            _log.warning("%s is saved without enable_async: its state cannot be held.", name)
        finish()
        story.resumed()

    def _hold(
        self,
        coordinator: Coordinator,
        keys: Keys,
        story: Story,
        name: str,
        options: tf.train.CheckpointOptions | None,
    ) -> tuple[CapturedState, SaveSession]:
        """Takes hold of this worker's share of the state; returns it and the save it is for."""
        if self._capture is None:
            self._capture = Capture(
                self._target,
                workers=coordinator.count,
                index=coordinator.index,
                split=_split(coordinator),
            )
        check = self._check(coordinator)
        try:
            with paused():
                state, plan = self._capture.take(options, check)
                own = self._own.take() if self._own is not None else None
        except Exception as error:
            if coordinator.count == 1:
                raise
            raise withdraw(coordinator, keys, error, name).to_error(coordinator.index) from error
        writer = Writer(
            self._storage,
            self._directory_path,
            coordinator.index,
            coordinator.count,
            durable=self._options.durable,
            threads=self._options.write_threads,
        )
        return state, SaveSession(
            coordinator,
            writer,
            self._committer,
            self._books if coordinator.is_chief else None,
            keys,
            name=name,
            directory=self._directory_path,
            label=story.label,
            plan=plan,
            state=state,
            patience=Patience(self._options.save_deadline, self._options.slow_factor),
            check=check,
            own=own,
            story=story,
        )

    def _check(self, coordinator: Coordinator) -> Check:
        """Returns what this save compares of the workers' copies."""
        if coordinator.count == 1:
            return Check()
        options, turn = self._options, next(self._turns)
        return Check(options.check_replicas, options.check_replicas_every, turn)

    def _label(self, name: str, metrics: dict[str, float]) -> Label:
        number = layout.split_number(name)[1] or 0
        return Label(self._step(number), metrics, self._books.rules)

    def _step(self, number: int) -> int:
        """Returns what the manifest calls the step; `number` if there is no counter to read."""
        if self._steps is None:
            return number
        try:
            return int(evaluate(self._steps))
        except (TypeError, ValueError, AttributeError, tf.errors.OpError):
            return number  # TensorFlow does not look at it, either, without `checkpoint_interval`

    # --- Ending -------------------------------------------------------------------------------

    @property
    def worker_count(self) -> int:
        """How many workers share the saving."""
        return self._connect()[0].count

    @property
    def longest_wait(self) -> float:
        """After how many seconds a save waits for nobody any more, however slow he is."""
        patience = Patience(self._options.save_deadline, self._options.slow_factor)
        return patience.limit + patience.grace

    def has_time_to_save(self, seconds_left: float | None) -> bool:
        """Returns whether a save is likely to end in time. Every worker, same point; same answer.

        A save takes as long as the longest of the last three that are listed, by their manifests.

        Args:
          seconds_left: Until this worker ends; None if it has not been told to.

        Raises:
          CoordinationError: Some worker did not come, or died.
        """
        coordinator, _ = self._connect()
        keys = Keys(self._namespace, "grace", next(self._calls["grace"]))
        expected = None
        if coordinator.is_chief:
            expected = self._catalog().longest_save(kept.name for kept in self._books.active[-3:])
        seconds = self._options.save_deadline
        if seconds_left is not None:
            seconds = min(seconds, max(1.0, seconds_left))
        return grace.has_time(coordinator, keys, seconds_left, expected, Patience(seconds))

    def told_to_end(self, seconds_left: float | None) -> None:
        """Tells the listeners that this worker is about to end. Also in a signal handler."""
        self._emit(Preempted, seconds_left=seconds_left)

    def leave(self) -> None:
        """Says that this worker is about to end. Every worker, same point.

        The chief, on which the coordination service runs, returns when the others have called it,
        too, or after a few seconds: so they still hear how their last save has ended.
        """
        coordinator, _ = self._connect()
        grace.leave(coordinator, Keys(self._namespace, "leave", next(self._calls["leave"])))

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
        coordinator, _ = self._connect()
        self._flight.wait()
        session = RestoreSession(
            coordinator,
            self._storage,
            self._directory_path,
            self._books,
            Keys(self._namespace, "restore", next(self._calls["restore"])),
            lambda name: self._restore(name, coordinator),
            patience=Patience(self._options.restore_deadline, self._options.slow_factor),
            verify_data=self._options.verify_on_restore,
            emitter=self._emit,
        )
        name = session.run()
        if name is not None:
            self._pace.restored()
            return self._path(name)
        if self._initialize is not None:
            self._initialize()
            _log.info("There is no checkpoint in %s; init_fn was called.", self._directory_path)
        return None

    def _restore(self, name: str, coordinator: Coordinator) -> None:
        restore(self._target, self._path(name))
        if self._own is not None:
            manifest = self._catalog().manifest(name)
            states = manifest.worker_states if manifest is not None else ()
            paths = tuple(self._path(state.prefix) for state in states)
            index, count = coordinator.index, coordinator.count
            self._own.restore(name, WorkerStates(paths, index, count))

    # --- Life -----------------------------------------------------------------------------------

    def __enter__(self) -> CheckpointManager:
        """Returns the manager."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for the save in flight. An error of the body is not replaced by one of the save."""
        try:
            if error is None:
                self.sync()
            else:
                self._flight.wait()
        finally:
            self._emit.flush()

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

    def _connect(self) -> tuple[Coordinator, Agreement]:
        """Returns the job's coordinator, finding it at the first use."""
        if self._coordinator is None:
            self._coordinator = default_coordinator()
        if self._agreement is None:
            deadline = self._options.save_deadline
            self._agreement = Agreement(self._coordinator, self._namespace, deadline)
            index, count = self._coordinator.index, self._coordinator.count
            self._emit = Emitter(self._options.listeners, self._directory_path, index, count)
        if self._committer is None and self._coordinator.is_chief:
            durable = self._options.durable
            owner = ownership_of(self._storage, self._directory_path, durable=durable)
            self._books.delete = Pruner(
                self._storage, self._directory_path, owner, durable=durable
            ).prune
            self._committer = Committer(
                self._storage,
                self._directory_path,
                owner,
                BundleMerger(),
                durable=durable,
                on_takeover=self._books.reload,
            )
        return self._coordinator, self._agreement

    def _catalog(self) -> Catalog:
        return Catalog(PatientReader(self._storage), self._directory_path)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)


def _count_of(coordinator: Coordinator) -> Iterator[int]:
    return _managers_of.setdefault(coordinator, itertools.count())


def _split(coordinator: Coordinator) -> str:
    """Returns what is known to be equal on all workers, see `state.capture.capture`.

    TensorFlow's strategies mirror the variables made under them, and no others. Where another
    coordinator was given, the caller vouches for all of the state.
    """
    return "distributed" if coordinator.mirrors_only_distributed else "all"
