"""A training in miniature, for blocks that leave it out."""

import tensorflow as tf

import distckpt  # noqa: F401 - for the block

directory = "training"
steps = 20
step = tf.Variable(0, dtype=tf.int64)
model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(2)])
optimizer = tf.keras.optimizers.SGD(0.1)
optimizer.build(model.trainable_variables)
checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step)


def train_step():
    step.assign_add(1)
