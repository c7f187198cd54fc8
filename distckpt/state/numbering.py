"""Counts and numbers checkpoints as `tf.train.CheckpointManager` does, eagerly and in sessions."""

from __future__ import annotations

import numbers
from typing import Any

import tensorflow as tf


class SaveCounter:
    """The ``save_counter`` of a `tf.train.Checkpoint`, and the numbers made from it.

    Args:
      checkpoint: The `tf.train.Checkpoint` whose counter it is.
    """

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint
        self._assign: Any = None

    def advance(self, checkpoint_number: Any = None) -> int:
        """Adds one to the counter and returns the number of the checkpoint to be written.

        Args:
          checkpoint_number: None for the counter itself, an integer, or an integer variable or
            tensor.

        Raises:
          TypeError: `checkpoint_number` is none of these.
        """
        if tf.executing_eagerly():
            counter = self._checkpoint.save_counter
            counter.assign_add(1)
        else:
            counter = self._advance_in_session()
        return read_integer(counter if checkpoint_number is None else checkpoint_number)

    def _advance_in_session(self) -> Any:
        session = tf.compat.v1.get_default_session()
        if session is None:
            raise RuntimeError(
                "Saving in graph mode needs a default session: call save() within "
                "`with tf.compat.v1.Session() as session:`."
            )

        def initializing(next_creator: Any, **kwargs: Any) -> Any:
            variable = next_creator(**kwargs)
            session.run(variable.initializer)
            return variable

        with tf.variable_creator_scope(initializing):
            counter = self._checkpoint.save_counter
        if self._assign is None:
            self._assign = counter.assign_add(1, read_value=False)
        session.run(self._assign)
        return counter


def read_integer(value: Any) -> int:
    """Returns an integer, integer variable or tensor as an int.

    Raises:
      TypeError: `value` is not a scalar of an integer type.
    """
    if isinstance(value, numbers.Integral):
        return int(value)
    dtype = getattr(value, "dtype", None)
    # Keras 3 variables name their type by a string.
    if dtype is None or not tf.as_dtype(dtype).is_integer:
        raise TypeError(
            f"A checkpoint is numbered by an integer, an integer variable or tensor, got {value!r}."
        )
    return int(evaluate(value))


def evaluate(value: Any) -> Any:
    """Returns the number that a variable or tensor holds, eagerly or through the session."""
    if tf.executing_eagerly() or not (tf.is_tensor(value) or isinstance(value, tf.Variable)):
        return value.numpy() if hasattr(value, "numpy") else value
    return tf.compat.v1.get_default_session().run(value)


def step_or(number: int, steps: Any) -> int:
    """Returns what the manifest calls the step; `number` if there is no counter to read."""
    if steps is None:
        return number
    try:
        return int(evaluate(steps))
    except (TypeError, ValueError, AttributeError, tf.errors.OpError):
        return number  # TensorFlow does not look at it, either, without `checkpoint_interval`
