"""`CheckpointCallback`: saves, restores and resumes within `fit`."""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from distckpt.errors import UnsupportedOptionError
from distckpt.keras.checks import build, check_frequency, check_together
from distckpt.keras.fit import begin_at, refuse_foreign
from distckpt.keras.memory import Memory
from distckpt.keras.monitor import Monitor, numbers_in
from distckpt.keras.progress import Place, Progress
from distckpt.manager import CheckpointManager
from distckpt.options import ManagerOptions
from distckpt.preemption import handle_preemption

_log = logging.getLogger("distckpt")
_MAX_TO_KEEP = 3


class CheckpointCallback(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Saves checkpoints in `fit`, restores the newest at its start, and goes on at the next batch.

    In place of `ModelCheckpoint` and `BackupAndRestore`, of Keras 3 and of tf-keras; under
    `MultiWorkerMirroredStrategy` with tf-keras (Keras 3 itself fails there). Every worker gives
    `fit` one with the same arguments.

      ```python
      callback = distckpt.keras.CheckpointCallback("/shared/run-1", save_freq=500)
      model.fit(dataset, epochs=10, callbacks=[callback])
      ```

    Model, optimizer, epoch, batch and the best value of the metric are saved. When the program is
    started again, `fit` goes on in that epoch, and the batches of it that have been trained are
    read and thrown away. So an input that is the same in every epoch (a `tf.data.Dataset` of fixed
    order, arrays with ``shuffle=False``) is trained on as if nothing had happened. The metrics of
    the epoch in which `fit` was resumed are those of the batches after that.

    A callback restores in the first `fit` that it is given to; later ones in the same process go on
    with the model as it is.

    Args:
      directory: Where; or a `CheckpointManager`. The model and its optimizer become part of the
        manager's checkpoint, under ``keras_fit``.
      save_freq: "epoch": save at the end of each; or after so many batches; or False: only at the
        end, and with `preemption`. A save that is due after the last batch of an epoch comes after
        its validation. With ``save_freq=1`` a ``ManagerOptions(save_policy=…)`` decides.
      monitor: The name of a metric in `fit`'s logs, whose best value is remembered.
      mode: Whether its smallest ("min") or largest ("max") value is the best; "auto": by its name.
      save_best_only: Save only if `monitor` is better than at all saves before. A save whose logs
        do not have it is left out.
      initial_value_threshold: The value that `monitor` must beat at first.
      max_to_keep: How many checkpoints to keep; None for all. Default: 3.
      restore: Whether to restore the newest checkpoint. If not, the best value of `monitor` is
        still read from it. The model must be built before `fit` if so.
      input_continues: Whether `fit` reads from one iterator in all epochs: so it does if it is
        given ``steps_per_epoch`` and a dataset that repeats. All batches trained since the first
        epoch are then thrown away.
      options: A `distckpt.ManagerOptions`, e.g. with ``enable_async=True``.
      worker_checkpoint: What only this worker has, see `CheckpointManager`.
      preemption: Whether SIGTERM makes all workers save and exit, see `handle_preemption`.
      remember: Other callbacks of this `fit`, e.g. `EarlyStopping` and `ReduceLROnPlateau`: the
        numbers that they have noted in themselves are saved and restored, too; no weights. In
        `fit`'s list let them come before this one.
      save_at_end: Whether to save once more at the end of `fit` what the last save does not have.
        Not with `save_best_only`.
      verbose: 1 to print what is saved and restored.

    Raises:
      ConfigurationError: Arguments that make no sense, or not together.
    """

    _supports_tf_logs = True  # tf-keras then need not wait for the logs of each batch

    def __init__(
        self,
        directory: str | os.PathLike[str] | CheckpointManager,
        *,
        save_freq: str | int = "epoch",
        monitor: str | None = None,
        mode: str = "auto",
        save_best_only: bool = False,
        initial_value_threshold: float | None = None,
        max_to_keep: int | None = _MAX_TO_KEEP,
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
        options_given = (max_to_keep != _MAX_TO_KEEP, options is not None, worker_checkpoint)
        self._given = directory if isinstance(directory, CheckpointManager) else None
        check_together(
            best_only=save_best_only,
            monitor=monitor,
            preemption=preemption,
            restore=restore,
            has_manager=self._given is not None,
            has_options=any(options_given),
        )
        self._new_manager = functools.partial(
            CheckpointManager,
            directory=directory,
            max_to_keep=max_to_keep,
            worker_checkpoint=worker_checkpoint,
            options=options,
        )
        self._frequency = save_freq
        self._monitor = Monitor(monitor, mode) if monitor is not None else None
        self._best_only = save_best_only
        self._threshold = math.nan if initial_value_threshold is None else initial_value_threshold
        self._restores = restore
        self._input_continues = input_continues
        self._preemption = preemption
        self._handler: Any = None
        self._memory = Memory(remember)
        self._begins = self._recalls = False
        self._at_end = save_at_end and not save_best_only
        self._verbose = verbose
        self._manager: CheckpointManager | None = None
        self._progress: Progress | None = None
        self._forget: Any = lambda epoch_is_over=True: None
        self._place = self._saved = self._begun = Place()
        self._due = False
        self._thread = 0

    @property
    def manager(self) -> CheckpointManager | None:
        """The manager; None before the first `fit`, if none was given."""
        return self._manager or self._given

    # --- What Keras calls -----------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Restores, at the first `fit`, and says where to begin."""
        refuse_foreign(self.model)
        self._thread = threading.get_ident()
        first = self._progress is None
        progress = self._connect()
        self._place = self._begun = Place(seen=self._place.seen)
        self._begins = True
        if first and self._restores:
            self._restore()
            self._begin(progress.place)
            self._recalls = True
        elif first and self._monitor and (path := self._connected.latest_checkpoint):
            progress.read_best(path)
        self._saved = self._place

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._forget(epoch_is_over=False)
        if self._begins:  # the others' on_train_begin, which sets them back, is over
            self._memory.begin(recall=self._recalls)
            self._begins = self._recalls = False
        if epoch != self._begun.epoch:
            self._begun = Place(epoch)
        self._place = Place(epoch, self._begun.batch, self._place.seen)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the batch, and saves if it is time to."""
        trained = batch + 1  # the last of those that were trained in one call
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
        """Saves if it is time to."""
        self._forget()
        steps = self._steps
        stopped_within = self.model.stop_training and steps and self._place.batch < steps
        if not stopped_within:
            self._place = Place(epoch + 1, 0, self._place.seen)
            self._begun = Place(epoch + 1)
        if self._due or self._frequency == "epoch":
            self._save(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Saves what has not been saved, and waits until it is committed."""
        self._forget()
        if self._at_end and self._place != self._saved:
            self._save(logs, at_end=True)
        self._connected.sync()

    # --- Restoring ------------------------------------------------------------------------------

    @property
    def _connected(self) -> CheckpointManager:
        assert self._manager is not None
        return self._manager

    def _connect(self) -> Progress:
        """Makes the variables and the manager, at the first use."""
        with self.model.distribute_strategy.scope():
            if self._restores:
                build(self.model)
            if self._progress is None:
                self._progress = self._make()
            self._progress.track(self.model)
        return self._progress

    def _make(self) -> Progress:
        if self._given is not None:
            self._manager = self._given
            return Progress(self._given.checkpoint, self._threshold, self._memory.text)
        # By these names a program without this callback can ask for them.
        checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer)
        progress = Progress(checkpoint, self._threshold, self._memory.text)
        self._manager = self._new_manager(checkpoint, step_counter=progress.steps)
        return progress

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
        draw = place.seen if self._input_continues else place.batch
        if place.seen:
            self._forget = begin_at(self.model, place, steps=steps, draw=draw)
            self._say(f"goes on in epoch {place.epoch + 1} after {place.batch} batches of it")

    @property
    def _steps(self) -> int | None:
        """How many batches an epoch has; None if nobody knows."""
        steps = (self.params or {}).get("steps")
        return steps if steps and steps > 0 else None

    # --- Saving ---------------------------------------------------------------------------------

    def _save(self, logs: Any, *, at_end: bool = False) -> None:
        """Saves, if the metric says so."""
        assert self._progress is not None
        self._due = False
        metrics = numbers_in(logs)
        best = self._progress.best
        better = self._better(metrics, best)
        if self._best_only and better is None:
            return
        self._progress.best = best if better is None else better
        self._note()
        path = None
        try:
            path = self._connected.save(check_interval=not at_end, metrics=metrics)
        finally:
            if path is None:
                self._progress.best = best  # that of the checkpoints
        if path is not None:
            self._saved = self._place
            self._say(f"saves {path}" + ("" if better is None else f", the best with {better:g}"))

    def _better(self, metrics: dict[str, float], best: float) -> float | None:
        """Returns the chief's value of the metric if it is better than `best`.

        The others may see another one, of their share of the data; all must decide alike.
        """
        if self._monitor is None:
            return None
        name = self._monitor.name
        value = self._connected.agree_on(metrics.get(name))
        if value is None:
            self._warn_that_there_is_none(metrics)
            return None
        return value if self._monitor.improves(value, best) else None

    def _warn_that_there_is_none(self, metrics: dict[str, float]) -> None:
        assert self._monitor is not None
        if self._best_only:
            _log.warning(
                "There is no metric %s in the logs, so nothing is saved; there are: %s.",
                self._monitor.name,
                ", ".join(sorted(metrics)) or "none",
            )

    def _note(self) -> None:
        """Puts the place into the variables that are saved."""
        assert self._progress is not None
        self._progress.place = self._place
        self._memory.note()

    def _refuse_other_threads(self) -> None:
        """Raises if this is another thread than the one that trains: no collective may run here.

        Keras 3 calls a lone callback, that is in no list, on a thread of its own where it takes its
        backend for thread-safe.
        """
        if threading.get_ident() != self._thread:
            raise UnsupportedOptionError(
                "Keras calls this callback on another thread than the one that trains. Give fit a "
                "list: callbacks=[callback]."
            )

    def _say(self, text: str) -> None:
        if self._verbose:
            print(f"\ndistckpt {text}", flush=True)

    # --- What tf-keras asks of callbacks, in case this one's base is Keras 3's --------------------

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False
