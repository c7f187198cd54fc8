"""Trains a small network on scikit-learn's handwritten digits, on any number of workers.

    distckpt launch --workers 2 --max-restarts 1 -- python launch/digits.py --directory /tmp/digits

An ordinary training loop under `MultiWorkerMirroredStrategy`; distckpt is one line of it, and two
more make SIGTERM an ordinary end. Kill a worker while it runs: the launcher starts all again, and
they go on from the last checkpoint. Run it again with more steps: it goes on from there, and on any
number of workers.

The loop is written by hand; keras_digits.py does the like by `fit`.
"""

from __future__ import annotations

import argparse
import os

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import distckpt

BATCH = 64  # digits per step, of all workers together


def make_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def load_data() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns the digits to train on and those to test with: (images, labels) each."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=1
    )
    return (images, labels), (test_images, test_labels)


def digits_of_step(step: int, size: int) -> np.ndarray:
    """Returns which digits a step trains on: `BATCH` numbers below `size`.

    They depend on the number of the step alone. So a run that resumes sees what it would have seen
    without the interruption, and no position in the data needs to be saved.
    """
    return np.random.default_rng(step).choice(size, BATCH, replace=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="for checkpoints, seen by all workers")
    parser.add_argument("--steps", type=int, default=600, help="steps to train in all")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    arguments = parser.parse_args()

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    worker = strategy.cluster_resolver.task_id or 0  # None when it runs as a single process
    keras.utils.set_random_seed(1)
    (images, labels), (test_images, test_labels) = load_data()

    with strategy.scope():
        model = make_model()
        optimizer = keras.optimizers.Adam(0.002)
        optimizer.build(model.trainable_variables)  # its variables too must be made in the scope
        step = tf.Variable(0, dtype=tf.int64)

    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step)
    # The one changed line; it was: tf.train.CheckpointManager(checkpoint, ...)
    manager = distckpt.CheckpointManager(checkpoint, arguments.directory, max_to_keep=3)
    # Restores, too. SIGTERM is an ordinary end with it: one more save, and exit code 75.
    handler = distckpt.handle_preemption(manager)
    restored = manager.latest_checkpoint
    start = int(step.numpy())
    print(f"pid {os.getpid()} starts at step {start}, from {restored or 'scratch'}")

    def batch_of(step: int) -> tuple:
        rows = digits_of_step(step, len(images))

        def share_of_replica(context: tf.distribute.ValueContext) -> tuple[tf.Tensor, tf.Tensor]:
            shares = np.array_split(rows, context.num_replicas_in_sync)
            mine = shares[context.replica_id_in_sync_group]
            return tf.constant(images[mine]), tf.constant(labels[mine])

        return strategy.experimental_distribute_values_from_function(share_of_replica)

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")

    @tf.function
    def train_step(batch: tuple) -> tf.Tensor:
        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(images, training=True)) / BATCH
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)  # sums over the workers
            return loss

        losses = strategy.run(replica_step, args=batch)
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    for number in range(start + 1, arguments.steps + 1):
        loss = train_step(batch_of(number))
        step.assign(number)
        if number % 20 == 0 and worker == 0:
            print(f"step {number}/{arguments.steps} loss {loss:.4f}")
        if number % arguments.save_every == 0 or number == arguments.steps:
            path = manager.save(checkpoint_number=number)  # every worker; each writes its share
            if worker == 0:
                print(f"saved {path}")
        handler.save_checkpoint_if_preempted(checkpoint_number=number)

    if worker == 0:
        correct = np.argmax(model(test_images), axis=-1) == test_labels
        print(f"test accuracy {np.mean(correct):.4f} on {len(test_labels)} digits")


if __name__ == "__main__":
    main()
