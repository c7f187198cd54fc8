"""The states as TensorFlow's: plain variables, or a Keras model with its optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf


class State:
    """Variables, and a training step that writes to all of them.

    Args:
      state: "entries" are the paths and shapes of float32 variables; if "kind" is "resnet", the
        model is made by Keras.
      count: The number of workers. With several, the variables are mirrored.
      fresh: Whether to begin with zeros.

    Attributes:
      tracked: The arguments of `tf.train.Checkpoint`.
      variables: All variables that are saved, in the order of creation.
    """

    def __init__(self, state: dict[str, Any], count: int, fresh: bool) -> None:
        strategy = tf.distribute.get_strategy()
        if count > 1:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with _without_broadcast(strategy), strategy.scope():
            if state["kind"] == "resnet":
                self.tracked, self.variables = resnet()
            else:
                self.tracked, self.variables = _plain(state["entries"], fresh)
        # Each worker trains for itself: how they exchange gradients is not what is measured.
        local = [strategy.experimental_local_results(v)[0] for v in self.variables]
        numbers = [v for v in local if v.dtype.is_floating]
        if state["kind"] == "resnet":
            for n, variable in enumerate(numbers):
                variable.assign(_numbers(n, variable.shape, fresh))
        self.update = _updating(numbers)
        self.nbytes = sum(v.shape.num_elements() * v.dtype.size for v in local)
        self._matrix = tf.random.uniform((512, 512), maxval=1 / 256)

    def compute(self, times: int) -> None:
        """See `Library.compute`."""
        product = self._matrix
        for _ in range(times):
            product = tf.matmul(product, self._matrix)
        product[0, 0].numpy()

    def first_elements(self) -> list[float]:
        """See `Library.first_elements`."""
        return [float(tf.reshape(v, [-1])[0]) for v in self.variables]


def resnet() -> tuple[dict[str, Any], list[Any]]:
    """Returns ResNet50 with its Adam optimizer, and their variables."""
    import keras

    model = keras.applications.ResNet50(weights=None)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    found = [v.value for v in (*model.variables, *optimizer.variables)]
    return {"model": model, "optimizer": optimizer}, found


def _plain(entries: list[Any], fresh: bool) -> tuple[dict[str, Any], list[Any]]:
    module = tf.Module()
    module.weights = [tf.Variable(_numbers(n, s, fresh)) for n, (_, s) in enumerate(entries)]
    return {"model": module}, list(module.weights)


def _numbers(seed: int, shape: Any, fresh: bool) -> Any:
    if fresh:
        return np.zeros(shape, np.float32)
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def _updating(variables: list[Any]) -> Any:
    """Returns a function that adds to all `variables`; it is traced at its first call."""
    shapes = {tuple(v.shape): v.dtype for v in variables}
    gradients = {s: tf.random.uniform(s, maxval=0.01, dtype=t) for s, t in shapes.items()}

    @tf.function(autograph=False)
    def update() -> Any:
        added = [v.assign_add(gradients[tuple(v.shape)], read_value=False) for v in variables]
        with tf.control_dependencies(added):
            return tf.constant(1)

    return lambda: update().numpy()


@contextlib.contextmanager
def _without_broadcast(strategy: Any) -> Iterator[None]:
    """Lets each worker keep its own initial values, which here are equal.

    The strategy sends every one from the chief to the others: 9 ms each, minutes for 10,000.
    """
    extended = strategy.extended
    workers = getattr(extended, "_num_workers", 1)
    extended._num_workers = 1
    try:
        yield
    finally:
        extended._num_workers = workers
