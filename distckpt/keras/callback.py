"""`CheckpointCallback`: saves, restores and resumes in `fit`."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from distckpt.calls.save_request import Condition
from distckpt.errors import UnsupportedOptionError
from distckpt.keras.best_metric import Mode, Monitor, numbers_in, same
from distckpt.keras.checks import (
    build,
    check_frequency,
    check_kinds,
    check_together,
    warn_of_later_fit,
)
from distckpt.keras.fit import Beginning, refuse_foreign
from distckpt.keras.joining import BatchCount, batches_trained, best_before, fit_of, highest_number
from distckpt.keras.manager_source import MAX_TO_KEEP, ManagerSource
from distckpt.keras.memory import Memory, text_variable
from distckpt.keras.progress import Place, Progress
from distckpt.manager.checkpoint_manager import CheckpointManager
from distckpt.options import ManagerOptions
from distckpt.preemption.handler import handle_preemption
from distckpt.runtime import portable


class CheckpointCallback(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Saves checkpoints in `fit`, restores the newest at its start, and resumes at the next batch.

    It replaces `ModelCheckpoint` and `BackupAndRestore` of Keras 3 and of tf-keras. Under
    `MultiWorkerMirroredStrategy` it works with tf-keras (Keras 3 itself fails there). Every worker
    gives `fit` a callback with the same arguments.

      ```python
      callback = distckpt.keras.CheckpointCallback("/shared/run-1", save_freq=500)
      model.fit(dataset, epochs=10, callbacks=[callback])
      ```

    Model, optimizer, epoch, batch and the best value of the metric are saved. When the program is
    started again, `fit` resumes in that epoch; it reads and discards the batches of the epoch that
    were already trained. So if the input is the same in every epoch (a `tf.data.Dataset` of fixed
    order, arrays with ``shuffle=False``), the training continues as if it had not been interrupted.
    The metrics of a resumed epoch are those of its remaining batches.

    A callback restores in its first `fit`, and again in the next one if the restore failed. Later
    calls of `fit` in the same process continue with the model as it is. A program that is to resume
    in a later `fit` gives each call a callback with a directory of its own.

    Args:
      directory: Where to save; or a `CheckpointManager`. The model and its optimizer become part of
        the manager's checkpoint, under ``keras_fit``.
      save_freq: "epoch" to save at the end of each epoch; a number to save after that many batches;
        False to save only at the end, and with `preemption`. A save that is due after the last
        batch of an epoch comes after its validation. Give ``save_freq=1`` to let a
        ``ManagerOptions(save_policy=…)`` decide.
      monitor: The name of a metric in `fit`'s logs, whose best value is remembered.
      mode: Whether its smallest ("min") or largest ("max") value is the best; "auto": by its name.
      save_best_only: Save only if `monitor` is better than at all earlier saves. If the logs do not
        have it, nothing is saved.
      initial_value_threshold: The value that `monitor` must be better than at first.
      max_to_keep: How many checkpoints to keep; None for all. Default: 3.
      restore: Whether to restore the newest checkpoint; then the model must be built before `fit`.
        If False, another callback or the program may restore, and this one continues from there:
        it numbers its checkpoints above those in the directory, counts the steps of the training,
        and still reads the best value of `monitor`. Of several callbacks in one `fit`, only one may
        restore.
      input_continues: Whether `fit` reads from one iterator in all epochs, as it does with
        ``steps_per_epoch`` and a dataset that repeats. Then a resumed `fit` discards all batches
        trained since the first epoch.
      options: A `distckpt.ManagerOptions`, e.g. with ``enable_async=True``.
      worker_checkpoint: What only this worker has, see `CheckpointManager`.
      preemption: Whether SIGTERM makes all workers save and exit, see `handle_preemption`.
      remember: Other callbacks of this `fit`, e.g. `EarlyStopping` and `ReduceLROnPlateau`, whose
        numbers, but not weights, are saved and restored, too. Put them before this callback in
        `fit`'s list.
      save_at_end: Whether to save once more at the end of `fit` if the last save is older. Not with
        `save_best_only`.
      verbose: 1 to print what is saved and restored.

    Raises:
      ConfigurationError: An argument, or a combination of arguments, makes no sense.
    """

    _supports_tf_logs = True  # so tf-keras need not wait for the logs of each batch

    def __init__(
        self,
        directory: str | os.PathLike[str] | CheckpointManager,
        *,
        save_freq: Literal["epoch"] | int = "epoch",
        monitor: str | None = None,
        mode: Mode = "auto",
        save_best_only: bool = False,
        initial_value_threshold: float | None = None,
        max_to_keep: int | None = MAX_TO_KEEP,
        restore: bool = True,
        input_continues: bool = False,
        options: ManagerOptions | None = None,
        worker_checkpoint: tf.train.Checkpoint | None = None,
        preemption: bool = False,
        remember: Sequence[Any] = (),
        save_at_end: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        check_frequency(save_freq, preemption or save_at_end)
        check_kinds(monitor, remember)
        check_together(save_best_only, monitor, preemption, restore)
        self._source = ManagerSource(directory, max_to_keep, worker_checkpoint, options)
        self._frequency = save_freq
        self._monitor = Monitor(monitor, mode) if monitor is not None else None
        self._metric = text_variable(str(self._monitor or ""))
        self._best_only = save_best_only
        self._threshold = math.nan if initial_value_threshold is None else initial_value_threshold
        self._restores = restore
        self._input_continues = input_continues
        self._preemption = preemption
        self._handler: Any = None
        self._memory = Memory(remember)
        self._begins = self._recalls = self._joins = False
        self._at_end = save_at_end and not save_best_only
        self._verbose = verbose
        self._manager: CheckpointManager | None = None
        self._progress: Progress | None = None
        self._beginning: Beginning | None = None
        self._fits = 0  # those that have begun
        self._count = BatchCount()
        self._place = self._saved = self._begun = Place()
        self._due = False
        self._thread = 0

    @property
    def manager(self) -> CheckpointManager | None:
        """The manager; None before the first `fit`, if none was given."""
        return self._manager or self._source.given

    # --- What Keras calls -----------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Restores in the first `fit`, and tells Keras where to begin."""
        refuse_foreign(self.model)
        self._thread = threading.get_ident()
        self._end_beginning()  # the previous `fit` may have ended with an exception
        self._due = False
        first = self._fits == 0
        progress = self._connect()
        self._place = self._begun = Place(seen=self._count.again(self.model, self._place.seen))
        self._begins = True
        fit = fit_of(self.model, self.params)
        if self._source.given is None:
            fit.saves_to(portable.absolute(self._connected.directory))
        if first and self._restores:
            self._restore()
            progress.is_of(str(self._monitor or ""))
            warn_of_later_fit(progress.fit, self._connected.directory)
            self._begin(progress.place)
            self._recalls = True
        elif first:
            self._continue(progress)
        self._fits += 1
        if self._restores:
            fit.restored(self._begun)
        self._joins = not self._restores
        self._saved = self._place

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        if self._beginning is not None:
            self._beginning.begun()
        if self._begins:  # the other callbacks' on_train_begin, which resets them, is over
            self._memory.begin(recall=self._recalls)
            self._begins = self._recalls = False
        if epoch != self._begun.epoch:
            self._begun = Place(epoch)
        self._place = Place(epoch, self._begun.batch, self._place.seen)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """At the first batch, finds out where the training began if another callback restored."""
        if self._joins:
            self._joins = False
            self._join(batch)
        self._count.begins()
        if self._beginning is not None:
            self._beginning.before_batch()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the batch, and saves if a save is due."""
        self._count.ends()
        trained = batch + 1  # `batch` is the last one of those trained in one call
        if trained <= self._begun.batch:
            return  # trained before the restart
        self._refuse_other_threads()
        before, seen = self._place.seen, self._place.seen + trained - self._place.batch
        self._place = Place(self._place.epoch, trained, seen)
        if self._frequency not in ("epoch", False):
            self._due |= seen // int(self._frequency) > before // int(self._frequency)
        steps = self._steps
        if self._due and (steps is None or trained < steps):
            self._save(logs)
        if self._handler is not None:
            self._note()
            self._handler.save_checkpoint_if_preempted()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves if a save is due."""
        self._end_beginning()
        steps = self._steps
        stopped_within = self.model.stop_training and steps and self._place.batch < steps
        if not stopped_within:
            self._place = Place(epoch + 1, 0, self._place.seen)
            self._begun = Place(epoch + 1)
        if self._due or self._frequency == "epoch":
            self._save(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Saves what has not been saved, and waits until it is committed."""
        self._end_beginning()
        if self._at_end and self._place != self._saved:
            self._save(logs, at_end=True)
        self._connected.sync()

    # --- Restoring ------------------------------------------------------------------------------

    @property
    def _connected(self) -> CheckpointManager:
        assert self._manager is not None
        return self._manager

    def _connect(self) -> Progress:
        """Makes the variables and the manager at the first use."""
        with self.model.distribute_strategy.scope():
            if self._restores:
                build(self.model)
            if self._progress is None:
                self._progress = self._make()
            self._progress.track(self.model)
        return self._progress

    def _make(self) -> Progress:
        if self._source.given is not None:
            self._manager = self._source.given
            return self._progress_in(self._manager.checkpoint)
        checkpoint = tf.train.Checkpoint()
        # A program without this callback can restore model and optimizer by their own names.
        progress = self._progress_in(checkpoint, at_top=True)
        self._manager = self._source.make(checkpoint, progress.steps)
        return progress

    def _progress_in(self, checkpoint: tf.train.Checkpoint, at_top: bool = False) -> Progress:
        texts = (self._metric, self._memory.text)
        return Progress(checkpoint, self._threshold, *texts, at_top=at_top)

    def _restore(self) -> None:
        if self._preemption:
            self._handler = handle_preemption(self._connected)
            path = self._connected.latest_checkpoint
        else:
            path = self._connected.restore_or_initialize()
        if path is not None:
            self._say(f"restored {path}")

    def _begin(self, place: Place) -> None:
        """Lets `fit` begin at `place`."""
        steps = self._steps
        if steps is not None and place.batch >= steps:
            place = Place(place.epoch + 1, 0, place.seen)
        self._place = self._begun = place
        self._count.note(self.model, place.seen)
        draw = place.seen if self._input_continues else place.batch
        if place.seen:
            self._beginning = Beginning(self.model, place, steps=steps, draw=draw)
            self._say(f"resumes in epoch {place.epoch + 1} after {place.batch} of its batches")

    def _end_beginning(self) -> None:
        """Removes the place where `fit` should begin from the model."""
        if self._beginning is not None:
            self._beginning.end()
        self._beginning = None

    def _continue(self, progress: Progress) -> None:
        """Continues the numbers and the best value in the directory; restores nothing.

        The other workers may see an old listing; each save gives them the chief's values.
        """
        manager, counter = self._connected, self._connected.checkpoint.save_counter
        best = best_before(manager, str(self._monitor)) if self._monitor else math.nan
        highest = highest_number(manager.directory)
        if highest > int(counter.numpy()):
            counter.assign(highest)
        if not math.isnan(best):
            progress.best = best

    def _join(self, batch: int) -> None:
        """Takes over the place of a training that begins with `batch` of this epoch."""
        epoch, begun = self._place.epoch, fit_of(self.model, self.params).begun
        if begun is None:
            seen = max(self._place.seen, batches_trained(self.model))
            self._place = Place(epoch, batch, seen)
        else:
            self._place = Place(epoch, begun.batch if begun.epoch == epoch else 0, begun.seen)
        self._begun = self._saved = self._place
        self._count.note(self.model, self._place.seen)

    @property
    def _steps(self) -> int | None:
        """How many batches an epoch has; None if this is unknown."""
        steps = (self.params or {}).get("steps")
        return steps if steps and steps > 0 else None

    # --- Saving ---------------------------------------------------------------------------------

    def _save(self, logs: Any, *, at_end: bool = False) -> None:
        """Saves, unless the metric is not good enough."""
        assert self._progress is not None
        self._due = False
        self._note()
        metrics, best = numbers_in(logs), self._progress.best
        path = None
        try:
            path = self._save_now(metrics, check_interval=not at_end)
        finally:
            if path is None:
                self._progress.best = best  # the one in the checkpoints
        if path is not None:
            self._saved = self._place
            new = self._progress.best
            self._say(f"saves {path}" + (f", the best with {new:g}" if not same(new, best) else ""))

    def _save_now(self, metrics: dict[str, float], *, check_interval: bool) -> str | None:
        manager, progress = self._connected, self._progress
        if self._monitor is None:
            return manager.save(check_interval=check_interval, metrics=metrics)
        assert progress is not None
        # Other workers may have a different value, of their share of the data: the chief decides.
        decide = functools.partial(self._monitor.decide, metrics, progress.best, self._best_only)
        condition = Condition(decide, progress.take_over_best)
        return manager._save_if(condition, check_interval=check_interval, metrics=metrics)

    def _note(self) -> None:
        """Stores the place in the variables that are saved."""
        assert self._progress is not None
        self._progress.place = self._place
        self._progress.fit = self._fits
        self._memory.note()

    def _refuse_other_threads(self) -> None:
        """Raises if this is not the thread that trains: no collective may run on another one.

        Keras 3 calls a single callback, outside a list, on a thread of its own if it considers its
        backend thread-safe.
        """
        if threading.get_ident() != self._thread:
            raise UnsupportedOptionError(
                "Keras calls this callback on a thread other than the one that trains. Give fit a "
                "list: callbacks=[callback]."
            )

    def _say(self, text: str) -> None:
        if self._verbose:
            print(f"\ndistckpt {text}", flush=True)

    # --- For tf-keras, in case the base class is that of Keras 3 ---------------------------------

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False
