"""The training whose checkpoints the pictures show: launch/digits.py's model, with metrics.

distckpt launch --workers 2 -- python docs/screenshots/job.py run-1
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np
import tensorflow as tf

import distckpt
from distckpt import keep

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "launch"))
import digits

EVERY = 50  # steps between two checkpoints


def main() -> None:
    """Trains, and saves with the loss on the test digits as a metric."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--megabytes", type=int, default=0, help="size of an additional variable")
    arguments = parser.parse_args()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    digits.keras.utils.set_random_seed(1)
    (images, labels), (test_images, test_labels) = digits.load_data()
    with strategy.scope():
        model = digits.make_model()
        optimizer = digits.keras.optimizers.Adam(0.002)
        optimizer.build(model.trainable_variables)
        step = tf.Variable(0, dtype=tf.int64)
        table = tf.Variable(tf.random.normal((arguments.megabytes * 256, 1024), seed=1))
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step, table=table)
    options = distckpt.ManagerOptions(keep=keep.EverySteps(200) | keep.Best(1, "test_loss"))
    manager = distckpt.CheckpointManager(
        checkpoint, arguments.directory, 2, step_counter=step, options=options
    )
    loss_of = digits.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train_step(images: tf.Tensor, labels: tf.Tensor) -> None:
        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                loss = loss_of(labels, model(images, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)

        strategy.run(replica_step, args=(images, labels))

    manager.restore_or_initialize()
    for number in range(int(step.numpy()) + 1, arguments.steps + 1):
        rows = digits.digits_of_step(number, len(images))
        train_step(tf.constant(images[rows]), tf.constant(labels[rows]))
        step.assign(number)
        if number % EVERY == 0:
            loss = float(np.asarray(loss_of(test_labels, model(test_images))))
            manager.save(checkpoint_number=number, metrics={"test_loss": round(loss, 4)})


if __name__ == "__main__":
    main()
