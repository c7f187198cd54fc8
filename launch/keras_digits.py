"""Trains by Keras' `fit` on scikit-learn's handwritten digits, on any number of workers.

    distckpt launch --workers 2 --max-restarts 1 -- python launch/keras_digits.py --directory /tmp/k

With Keras 3, or with tf-keras where TF_USE_LEGACY_KERAS=1 is set. Kill a worker while it runs: the
launcher starts all again, and they go on at the very batch after the last checkpoint.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import distckpt

keras = tf.keras
BATCH = 64  # digits per step, of all workers together


class Strategy(tf.distribute.MultiWorkerMirroredStrategy):
    """`MultiWorkerMirroredStrategy` for `fit` of Keras 3, which calls `reduce` in its own ways.

    With a whole batch, although `reduce` takes one value; only to learn the shapes, for which this
    worker's part does. And with ``axis=0`` for scalars, which have no axis. tf-keras needs no help.
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        local = tf.nest.map_structure(lambda part: self.experimental_local_results(part)[0], value)
        if isinstance(value, tuple):
            return local
        return super().reduce(reduce_op, value, axis if local.shape.rank else None)


def make_model() -> keras.Model:
    model = keras.Sequential(
        [
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.build((None, 8, 8, 1))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns what to train on and what to test with: the same in every epoch and every start."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    options = tf.data.Options()  # each worker has all digits, and takes every so many-th of them
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    digits = tf.data.Dataset.from_tensor_slices((images, labels)).with_options(options)
    return digits.skip(300).batch(BATCH), digits.take(300).batch(BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="for checkpoints, seen by all workers")
    parser.add_argument("--epochs", type=int, default=8, help="epochs to train in all")
    parser.add_argument("--save-every", type=int, default=10, help="batches between checkpoints")
    arguments = parser.parse_args()

    strategy = Strategy() if "TF_CONFIG" in os.environ else tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make_model()
    digits, test_digits = load_data()
    callback = distckpt.keras.CheckpointCallback(
        arguments.directory, save_freq=arguments.save_every, preemption=True, verbose=1
    )
    model.fit(
        digits,
        epochs=arguments.epochs,
        validation_data=test_digits,
        callbacks=[callback],
        verbose=2,
    )


if __name__ == "__main__":
    main()
