"""Lets `fit` begin in the middle. All private API of Keras that distckpt uses is in here.

Neither Keras has a public way to say where to begin from within a callback, when the checkpoint has
been read. Both read an attribute of the model after ``on_train_begin``, made for their own
`BackupAndRestore`: Keras 3 ``_initial_epoch``; tf-keras ``_training_state``, which is asked for the
epoch and the step.

Neither passes over the batches that have been trained in that epoch: tf-keras counts from the right
step, but reads from the first batch on (keras-team/tf-keras#274); Keras 3 begins the epoch anew
(keras-team/keras#19179). Both call ``model.train_function`` with the iterator that they read from,
in each step. So for the first steps there is another function in its place, which takes the
batches out and trains none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distckpt.errors import ConfigurationError
from distckpt.keras.progress import Place


def refuse_foreign(model: Any) -> None:
    """Raises ConfigurationError if `model` is not of a Keras that can be told where to begin."""
    if not hasattr(model, "train_function") or not (
        _is_tf_keras(model) or hasattr(model, "_initial_epoch")
    ):
        raise ConfigurationError(
            f"CheckpointCallback works with the models of Keras 3 (TensorFlow backend) and of "
            f"tf-keras, this one is a {type(model).__module__}.{type(model).__name__}. If it "
            "should work, this version of Keras has changed; distckpt's CHANGELOG.md names those "
            "that it was tested with."
        )


def begin_at(model: Any, place: Place, *, steps: int | None, draw: int) -> Callable[[], None]:
    """Lets `fit`, whose ``on_train_begin`` is running, begin at `place`.

    Args:
      model: The model.
      place: Where to begin.
      steps: How many batches an epoch has; None if nobody knows.
      draw: How many batches are to be taken out of the iterator before.

    Returns:
      A function to be called when the first epoch has begun, and when it has ended: it leaves no
      trace of the above in the model.
    """
    swallow = place.batch // _batches_per_call(model)
    if _is_tf_keras(model):
        begin_in_epoch = steps is not None  # else `fit` fails if none is left in this epoch
        swallow = 0 if begin_in_epoch else swallow
        model._training_state = _Begin(place.epoch, place.batch if begin_in_epoch else 0)
        model._train_counter.assign(place.seen)  # the steps of its TensorBoard callback
    else:
        model._initial_epoch = place.epoch
    skip = _Skip(model, draw, swallow) if draw or swallow else None

    def forget(epoch_is_over: bool = True) -> None:
        # Both are read once, between on_train_begin and on_epoch_begin. Left there, they would
        # apply to the next `fit`, too.
        if _is_tf_keras(model):
            model._training_state = None
        else:
            model._initial_epoch = None
        if skip is not None and epoch_is_over:
            skip.end()

    return forget


def _is_tf_keras(model: Any) -> bool:
    return hasattr(model, "_maybe_load_initial_counters_from_ckpt")


def _batches_per_call(model: Any) -> int:
    """Returns ``steps_per_execution``."""
    if _is_tf_keras(model):
        return int(model._steps_per_execution.numpy())
    return int(model.steps_per_execution)


class _Begin:
    """What tf-keras asks where to begin; in place of its `WorkerTrainingState`."""

    def __init__(self, epoch: int, step: int) -> None:
        self._place = (epoch, step)

    def maybe_load_initial_counters_from_ckpt(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Returns the epoch and the step."""
        return self._place


class _Skip:
    """Stands in for a model's ``train_function`` until `draw` batches have been taken out.

    Args:
      model: The model.
      draw: How many batches to take out, at the first call.
      swallow: How many calls do nothing else, because `fit` counts from the epoch's first batch.
    """

    def __init__(self, model: Any, draw: int, swallow: int) -> None:
        self._model, self._draw, self._swallow = model, draw, swallow
        self._train = model.train_function
        model.train_function = self

    def __call__(self, iterator: Any) -> Any:
        """Trains on the next batch, or makes as if; returns the logs."""
        for number in range(self._draw):
            try:
                next(iterator)
            except StopIteration as end:
                raise ConfigurationError(
                    f"The input ended after {number} batches, but {self._draw} have been trained "
                    "and were to be passed over. The input, or the size of a batch, is not what "
                    "it was when the checkpoint was saved."
                ) from end
        self._draw = 0
        if self._swallow > 0:
            self._swallow -= 1
            return {}
        self.end()
        return self._train(iterator)

    def end(self) -> None:
        """Gives the model its function back."""
        if self._model.train_function is self:
            self._model.train_function = self._train
