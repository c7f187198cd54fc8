"""A state of three variables, and what checkpoints hold of them."""

from __future__ import annotations

import os
import pathlib

import tensorflow as tf


def three_variables():
    return tf.train.Checkpoint(
        a=tf.Variable(tf.range(600.0)), b=tf.Variable(tf.range(300.0)), c=tf.Variable(7)
    )


def shards(path):
    """Returns the names of a checkpoint's data files."""
    return sorted(
        p.name for p in pathlib.Path(path).parent.glob(f"{os.path.basename(path)}.data-*")
    )


def restored(path):
    """Returns the values that plain TensorFlow finds in a checkpoint."""
    copy = tf.train.Checkpoint(
        a=tf.Variable(tf.zeros(600)), b=tf.Variable(tf.zeros(300)), c=tf.Variable(0)
    )
    copy.restore(path).assert_consumed()
    return [v.numpy().tolist() for v in (copy.a, copy.b, copy.c)]


def values(checkpoint):
    return [v.numpy().tolist() for v in (checkpoint.a, checkpoint.b, checkpoint.c)]
