"""Counts and numbers checkpoints as `tf.train.CheckpointManager` does, eagerly and in sessions."""

from __future__ import annotations

import numbers
from typing import Any

import tensorflow as tf

from distckpt.errors import ConfigurationError

_MOST_BITS = 63  # of a positive number in an int64


class SaveCounter:
    """The ``save_counter`` of a `tf.train.Checkpoint`, which numbers checkpoints.

    Args:
      checkpoint: The `tf.train.Checkpoint` whose counter it is.
    """

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint
        self._assign: Any = None

    def advance(self, checkpoint_number: Any = None) -> tuple[int, int]:
        """Adds one to the counter; returns its value, and the number of the next checkpoint.

        Args:
          checkpoint_number: None for the counter itself, an integer, or an integer variable or
            tensor.

        Raises:
          TypeError: `checkpoint_number` is of another type.
          ConfigurationError: `checkpoint_number` does not fit into 64 bits.
        """
        if tf.executing_eagerly():
            counter = self._checkpoint.save_counter
            counter.assign_add(1)
        else:
            counter = self._advance_in_session()
        number = read_integer(counter if checkpoint_number is None else checkpoint_number)
        if number.bit_length() > _MOST_BITS:
            raise ConfigurationError(
                "checkpoint_number must fit into a signed 64-bit integer, but has "
                f"{number.bit_length()} bits."
            )
        return self.value, number

    def create(self) -> None:
        """Makes the counter if it does not exist. Every worker, on its training thread.

        In the scope of a strategy this is a collective, so no worker may wait for another first.
        """
        if tf.executing_eagerly():
            _ = self._checkpoint.save_counter

    @property
    def value(self) -> int:
        """The current value of the counter."""
        return int(evaluate(self._checkpoint.save_counter))

    def take_over(self, value: int) -> None:
        """Sets the counter to the chief's value."""
        counter = self._checkpoint.save_counter
        if tf.executing_eagerly():
            counter.assign(value)
        else:
            counter.load(value, tf.compat.v1.get_default_session())

    def _advance_in_session(self) -> Any:
        session = _session()

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
    # Keras 3 variables give their type as a string.
    if dtype is None or not tf.as_dtype(dtype).is_integer:
        raise TypeError(
            f"A checkpoint is numbered by an integer, an integer variable or tensor, got {value!r}."
        )
    return int(evaluate(value))


def evaluate(value: Any) -> Any:
    """Returns the number in a variable or tensor, eagerly or through the session."""
    if tf.executing_eagerly() or not (tf.is_tensor(value) or isinstance(value, tf.Variable)):
        return value.numpy() if hasattr(value, "numpy") else value
    return _session().run(value)


def _session() -> Any:
    session = tf.compat.v1.get_default_session()
    if session is None:
        raise RuntimeError(
            "Saving in graph mode needs a default session: call save() within "
            "`with tf.compat.v1.Session() as session:`."
        )
    return session


def step_or(number: int, steps: Any) -> int:
    """Returns the step for the manifest; `number` if there is no readable counter."""
    if steps is None:
        return number
    try:
        return int(evaluate(steps))
    except (TypeError, ValueError, OverflowError, AttributeError, tf.errors.OpError):
        return number  # TensorFlow does not read it, either, without `checkpoint_interval`
