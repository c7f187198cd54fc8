"""Lets `fit` begin in the middle. Only this module uses private API of Keras.

Neither Keras 3 nor tf-keras has a public way for a callback to say where to begin after it has
read the checkpoint. Both read an attribute of the model after ``on_train_begin``, made for their
own `BackupAndRestore`: Keras 3 reads ``_initial_epoch``; tf-keras calls ``_training_state`` for the
epoch and the step.

Neither skips the batches that were already trained in that epoch: tf-keras counts from the right
step, but reads from the first batch on (keras-team/tf-keras#274); Keras 3 begins the epoch again
(keras-team/keras#19179). In each step, both call ``model.train_function`` with their iterator,
after ``on_train_batch_begin``. So this module replaces that function for the first steps by one
that takes the batches out of the iterator without training.
"""

from __future__ import annotations

from typing import Any

from distckpt.errors import ConfigurationError
from distckpt.keras.progress import Place


def refuse_foreign(model: Any) -> None:
    """Raises ConfigurationError if `model` is not of a Keras version that works here."""
    if not hasattr(model, "train_function") or not (
        _is_tf_keras(model) or hasattr(model, "_initial_epoch")
    ):
        raise ConfigurationError(
            f"CheckpointCallback works with the models of Keras 3 (TensorFlow backend) and of "
            f"tf-keras, but this one is a {type(model).__module__}.{type(model).__name__}. If it "
            "should work, this version of Keras has changed; distckpt's CHANGELOG.md names the "
            "tested versions."
        )


class Beginning:
    """Lets `fit`, whose ``on_train_begin`` is running, begin at `place`.

    A `fit` may end with an exception at any point, and the next one may have no callback of ours.
    So what is left in the model must have no effect in another `fit`.

    Args:
      model: The model.
      place: Where to begin.
      steps: How many batches an epoch has; None if this is unknown.
      draw: How many batches to take out of the iterator first.
    """

    def __init__(self, model: Any, place: Place, *, steps: int | None, draw: int) -> None:
        self._model = model
        swallow = place.batch // batches_per_call(model)
        if _is_tf_keras(model):
            begin_in_epoch = steps is not None  # or `fit` fails if the epoch has no batches left
            swallow = 0 if begin_in_epoch else swallow
            batch = place.batch if begin_in_epoch else 0
            model._training_state = _Begin(_Running(model), place.epoch, batch)
            model._train_counter.assign(place.seen)  # the steps of its TensorBoard callback
        else:
            model._initial_epoch = _Epoch.of(_Running(model), place.epoch)
        self._skip = _Skip(model, draw, swallow)

    def begun(self) -> None:
        """Called when the first epoch has begun: Keras has read where to begin."""
        if _is_tf_keras(self._model):
            self._model._training_state = None
        else:
            self._model._initial_epoch = None

    def before_batch(self) -> None:
        """Called before Keras trains on the next batch."""
        self._skip.stand_in()

    def end(self) -> None:
        """Called when the first epoch, or `fit`, has ended: restores the model's attributes."""
        self.begun()
        self._skip.end()


def _is_tf_keras(model: Any) -> bool:
    return hasattr(model, "_maybe_load_initial_counters_from_ckpt")


def batches_per_call(model: Any) -> int:
    """Returns ``steps_per_execution``."""
    if _is_tf_keras(model):
        return int(model._steps_per_execution.numpy())
    return int(model.steps_per_execution)


class _Running:
    """The call of `fit` that is running.

    Keras 3 and tf-keras both make a `History` for each call, with new ``params``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._params = self._now()

    @property
    def is_over(self) -> bool:
        """Whether another call has begun since."""
        return self._now() is not self._params

    def _now(self) -> Any:
        return getattr(getattr(self._model, "history", None), "params", None)


class _Epoch(int):
    """The value for Keras 3, which reads ``model._initial_epoch or initial_epoch``."""

    _fit: _Running

    @classmethod
    def of(cls, fit: _Running, epoch: int) -> _Epoch:
        """Returns the epoch, which is true only in that `fit`."""
        made = cls(epoch)
        made._fit = fit
        return made

    def __bool__(self) -> bool:
        return int(self) != 0 and not self._fit.is_over


class _Begin:
    """The value for tf-keras, which asks it where to begin; replaces its `WorkerTrainingState`."""

    def __init__(self, fit: _Running, epoch: int, step: int) -> None:
        self._fit, self._place = fit, (epoch, step)

    def maybe_load_initial_counters_from_ckpt(
        self, _: Any, initial_epoch: int, **__: Any
    ) -> tuple[int, int]:
        """Returns the epoch and the step."""
        return (initial_epoch, 0) if self._fit.is_over else self._place


class _Skip:
    """Replaces a model's ``train_function`` until `draw` batches have been taken out.

    It replaces the function only from just before a step until Keras calls it.

    Args:
      model: The model.
      draw: How many batches to take out, at the first call.
      swallow: How many calls train nothing, because `fit` counts from the epoch's first batch.
    """

    def __init__(self, model: Any, draw: int, swallow: int) -> None:
        self._model, self._draw, self._swallow = model, draw, swallow
        self._train: Any = None
        self._fit = _Running(model)

    def stand_in(self) -> None:
        """Replaces the model's function, if there are batches or calls left to skip."""
        if self._draw or self._swallow:
            train = self._model.train_function
            self._train = train._train if isinstance(train, _Skip) else train
            self._fit = _Running(self._model)
            self._model.train_function = self

    def __call__(self, iterator: Any) -> Any:
        """Trains on the next batch, or only skips it; returns the logs."""
        self.end()
        if self._fit.is_over:  # another callback's exception ended it before this step
            return self._train(iterator)
        for number in range(self._draw):
            try:
                next(iterator)
            except StopIteration as end:
                raise ConfigurationError(
                    f"The input ended after {number} batches, but {self._draw} have been trained "
                    "and must be skipped. The input or the batch size has changed since the "
                    "checkpoint was saved."
                ) from end
        self._draw = 0
        if self._swallow > 0:
            self._swallow -= 1
            return {}
        return self._train(iterator)

    def end(self) -> None:
        """Gives the model its own function back."""
        if self._model.train_function is self:
            self._model.train_function = self._train
