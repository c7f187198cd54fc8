"""How a training loop steps through an input: eagerly, or in a `tf.function`."""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf

from distckpt.data.replicas import Replicas
from distckpt.errors import ConfigurationError


class Stepping(abc.ABC):
    """An iterator over per-replica values. On the training thread.

    Attributes:
      _replicas: This worker's replicas.
      _endless: Whether there is always a next value.
    """

    _replicas: Replicas
    _endless: bool

    @abc.abstractmethod
    def _get(self) -> Any:
        """Returns the value for the next of this worker's replicas, in order."""

    def __iter__(self) -> Any:
        if tf.inside_function():
            raise ConfigurationError(
                f"In a tf.function, tracing a loop over {type(self).__name__} would never end. "
                "Write: for _ in tf.range(steps): … next(input) …"
            )
        return self

    def __next__(self) -> Any:
        try:
            return self._replicas.draw(self._get)
        except tf.errors.OutOfRangeError as end:
            if self._endless:
                raise ConfigurationError(
                    "An endless dataset has ended: the dataset that it repeats is empty."
                ) from end
            raise StopIteration from None
