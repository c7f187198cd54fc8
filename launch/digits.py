"""Trains a small network on scikit-learn's handwritten digits, on any number of workers.

    distckpt launch --workers 2 --max-restarts 1 -- python launch/digits.py --directory /tmp/digits

An ordinary training loop under `MultiWorkerMirroredStrategy`. distckpt takes one line of it, and a
good end after SIGTERM takes two more. Kill a worker while it runs: the launcher starts all workers
again, and they continue from the last checkpoint. Run it again with more steps, on any number of
workers: it continues from there, too.

The loop is written by hand; keras_digits.py does the same with `fit`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import distckpt
from distckpt.listeners import Prometheus

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

    They depend on the number of the step alone. So a run that resumes sees the same digits as one
    without an interruption, and no position in the data needs to be saved.
    """
    return np.random.default_rng(step).choice(size, BATCH, replace=False)


def distributed_batch(
    strategy: tf.distribute.Strategy, step: int, images: np.ndarray, labels: np.ndarray
) -> tuple:
    """Returns the batch of a step: each replica has its share of it."""
    rows = digits_of_step(step, len(images))

    def share_of_replica(context: tf.distribute.ValueContext) -> tuple[tf.Tensor, tf.Tensor]:
        shares = np.array_split(rows, context.num_replicas_in_sync)
        mine = shares[context.replica_id_in_sync_group]
        return tf.constant(images[mine]), tf.constant(labels[mine])

    return strategy.experimental_distribute_values_from_function(share_of_replica)


def make_train_step(
    strategy: tf.distribute.Strategy, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> Callable[[tuple], tf.Tensor]:
    """Returns a function that trains on a batch and returns its loss."""
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

    return train_step


def with_metrics(port: int | None) -> distckpt.ManagerOptions:
    """Returns options that serve metrics, if a port is given: k8s/components/monitoring."""
    listeners = [Prometheus(port, address="0.0.0.0")] if port else []
    return distckpt.ManagerOptions(listeners=listeners)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="for checkpoints, seen by all workers")
    parser.add_argument("--steps", type=int, default=600, help="steps to train in all")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--metrics-port", type=int, help="serve metrics to Prometheus at this port")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    worker = strategy.cluster_resolver.task_id or 0  # None when it runs as a single process
    keras.utils.set_random_seed(1)
    (images, labels), (test_images, test_labels) = load_data()

    with strategy.scope():
        model = make_model()
        optimizer = keras.optimizers.Adam(0.002)
        optimizer.build(model.trainable_variables)  # its variables too must be made in the scope
        step = tf.Variable(0, dtype=tf.int64)
    train_step = make_train_step(strategy, model, optimizer)

    options = with_metrics(arguments.metrics_port)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step)
    # The one changed line; it was: tf.train.CheckpointManager(checkpoint, ...)
    manager = distckpt.CheckpointManager(checkpoint, arguments.directory, 3, options=options)
    # Restores, too. With it SIGTERM ends the program well: one more save, and exit code 75.
    handler = distckpt.handle_preemption(manager)
    restored = manager.latest_checkpoint
    start = int(step.numpy())
    print(f"pid {os.getpid()} starts at step {start}, from {restored or 'scratch'}")

    for number in range(start + 1, arguments.steps + 1):
        loss = train_step(distributed_batch(strategy, number, images, labels))
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
