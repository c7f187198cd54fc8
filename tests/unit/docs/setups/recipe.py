"""What is left of the tutorial's recipe."""

import tensorflow as tf

import distckpt  # noqa: F401 - for the block

checkpoint_dir = "recipe"
checkpoint = tf.train.Checkpoint(weights=tf.Variable(1.0))
