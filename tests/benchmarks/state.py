"""The states that are saved: a few big variables, or many small ones. Imports TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

BIG_VARIABLES = 16
SMALL_SHAPE = (10,)


class Model(tf.Module):
    """Variables of these shapes, with the same random numbers on every worker."""

    def __init__(self, strategy: Any, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        numbers = np.random.default_rng(0)
        with _without_broadcast(strategy), strategy.scope():
            self.weights = [
                tf.Variable(numbers.random(shape, dtype=np.float32)) for shape in shapes
            ]

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return sum(v.shape.num_elements() * v.dtype.size for v in self.weights)


def make_model(strategy: Any, state: str, megabytes: int, variables: int) -> Model:
    """Returns the state "big" (`megabytes` MiB in 16 variables) or "small" (`variables`)."""
    if state == "big":
        rows = megabytes * 2**20 // BIG_VARIABLES // 4096
        return Model(strategy, [(rows, 1024)] * BIG_VARIABLES)
    return Model(strategy, [SMALL_SHAPE] * variables)


@contextlib.contextmanager
def _without_broadcast(strategy: Any) -> Iterator[None]:
    """Lets each worker keep its own initial values, which here are equal.

    The strategy sends every one from the chief to the others: 9 ms each, minutes for 10,000.
    """
    extended = strategy.extended
    workers, extended._num_workers = extended._num_workers, 1
    try:
        yield
    finally:
        extended._num_workers = workers
