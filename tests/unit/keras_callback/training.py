"""Programs that train a small model, with Keras 3 or tf-keras, alone or under a strategy.

It is tf-keras with ``TF_USE_LEGACY_KERAS`` set to 1, and a `MirroredStrategy` of two CPUs with
``DISTCKPT_TEST_REPLICAS`` set to 2: see test_other_keras.py.
"""

from __future__ import annotations

import functools
import os
import time

import numpy as np
import tensorflow as tf

import distckpt
from distckpt.inspection import inventory
from distckpt.storage.local import LocalStorage

keras = tf.keras
LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
REPLICAS = int(os.environ.get("DISTCKPT_TEST_REPLICAS", "1"))
if REPLICAS > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
EPOCHS, STEPS, BATCH = 3, 10, 4
FEW = 4  # batches of a short epoch
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(STEPS * BATCH, 4)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


@functools.cache
def strategy():
    if REPLICAS == 1:
        return tf.distribute.get_strategy()
    # By default the gradients go through collectives, which the two CPUs may start in a different
    # order ("Shape mismatch in the collective instance"), also without a callback.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(REPLICAS)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def make_model(seed=1, built=True, kind=keras, run_eagerly=True, **compiled):
    """Returns a small model. It runs eagerly, because tracing takes longer than training it."""
    kind.utils.set_random_seed(seed)
    with strategy().scope():
        model = kind.Sequential(
            [
                kind.layers.Dense(5, activation="tanh"),
                kind.layers.BatchNormalization(),
                *([] if LEGACY or kind is not keras else [kind.layers.Dropout(0.3)]),
                kind.layers.Dense(1),
            ]
        )
        if built:
            model.build((None, 4))
        optimizer = kind.optimizers.Adam(0.05)
        model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=run_eagerly, **compiled)
    return model


def bits(model):
    """Returns the bytes of all weights, and of the optimizer's slots and iterations."""
    optimizer = model.optimizer
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return [tf.convert_to_tensor(v).numpy().tobytes() for v in (*model.weights, *variables)]


class Interrupted(Exception):
    pass


class Watch(keras.callbacks.Callback):
    """Records what `fit` does; interrupts it before a batch, as if the program was killed.

    Args:
      stop: (epoch, batch) before which it raises.
      soft: (epoch, batch) after which it sets `stop_training`.
    """

    def __init__(self, stop=None, soft=False):
        super().__init__()
        self.stop, self.soft, self.epochs, self.batches, self.logs = stop, soft, [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epochs[-1], batch) == self.stop:
            raise Interrupted

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append((self.epochs[-1], batch))
        if self.soft and (self.epochs[-1], batch) == self.soft:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append({name: float(value) for name, value in logs.items()})


def arrays():
    return {"x": X, "y": Y, "batch_size": BATCH, "shuffle": False}


def dataset():
    return {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)}


def of_unknown_size():
    return {"x": dataset()["x"].filter(lambda *_: True)}


def endless():
    return {"x": dataset()["x"].repeat(), "steps_per_epoch": 7}


def one_batch():
    return {**arrays(), "x": X[:BATCH], "y": Y[:BATCH]}


INPUTS = {f.__name__: f for f in (arrays, dataset, of_unknown_size, endless)}


def fit(model, given, *callbacks, epochs=EPOCHS, **more):
    return model.fit(**given, epochs=epochs, verbose=0, callbacks=list(callbacks), **more)


def run(directory, given, stop=None, compiled=None, epochs=EPOCHS, **arguments):
    """Starts a program once; returns the model, what `fit` did, and the callback."""
    model, watch = make_model(**(compiled or {})), Watch(stop)
    callback = distckpt.keras.CheckpointCallback(directory, **arguments)
    try:
        fit(model, given, callback, watch, epochs=epochs)
    except Interrupted:
        assert stop is not None
    else:
        assert stop is None or stop not in watch.batches
    return model, watch, callback


def uninterrupted(given, compiled=None, epochs=EPOCHS):
    model, watch = make_model(**(compiled or {})), Watch()
    fit(model, given, watch, epochs=epochs)
    return bits(model), watch


class Scores(keras.callbacks.Callback):
    """Puts a metric into the logs."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = list(scores)

    def on_epoch_end(self, epoch, logs=None):
        if self.scores[epoch] is not None:
            logs["score"] = self.scores[epoch]


class FailsAt(keras.callbacks.Callback):
    """Raises once, when `fit` calls one of its methods.

    Args:
      method: Which.
      at: At which epoch or batch; None for the first.
    """

    def __init__(self, method, at=None):
        super().__init__()
        self.at, self.is_over = at, False
        setattr(self, method, self.fail)

    def fail(self, *arguments, logs=None):
        if not self.is_over and self.at in (None, arguments[0] if arguments else None):
            self.is_over = True
            raise Interrupted


def few():
    return {**arrays(), "x": X[: FEW * BATCH], "y": Y[: FEW * BATCH]}


def few_of_endless():
    return {"x": dataset()["x"].take(FEW).repeat(), "steps_per_epoch": FEW}


def kept(directory):
    """Returns name, step and score of each checkpoint in a directory."""
    items = inventory.take(LocalStorage(), str(directory), time.time()).items
    assert not [item.problem for item in items if item.problem]
    return [(item.name, item.step, item.manifest.metrics.get("score")) for item in items]


def only_best(directory, **arguments):
    given = {"monitor": "score", "mode": "min", "save_best_only": True, "restore": False}
    return distckpt.keras.CheckpointCallback(directory, **{**given, **arguments})


def train_with(
    *callbacks, stop=None, epochs=4, given=None, model=None, scores=(4, 3, 2, 1), **more
):
    """Starts a program once; `scores` are the metrics of its epochs, `stop` interrupts it."""
    watch = Watch(stop)
    model = model or make_model()
    try:
        fit(model, given or few(), Scores(*scores), *callbacks, watch, epochs=epochs, **more)
    except Interrupted:
        assert stop is not None
    return model, watch
