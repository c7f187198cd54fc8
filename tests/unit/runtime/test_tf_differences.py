from __future__ import annotations

import inspect

import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from distckpt.core.tensorflow_format.dtypes import BY_NUMBER

from ..kit import tf_differences


def test_the_last_step_is_an_argument_from_2_20_on():
    names = inspect.signature(tf.train.CheckpointManager).parameters
    assert ("last_checkpoint_step" in names) == tf_differences.TAKES_LAST_STEP


@pytest.mark.skipif(not tf_differences.TAKES_LAST_STEP, reason="it came with TensorFlow 2.20")
def test_the_last_step_0_counts_from_2_21_on(tmp_path):
    """Three steps after step 0, an interval of 5 is not over yet."""
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(),
        str(tmp_path),
        max_to_keep=1,
        step_counter=tf.Variable(3),
        checkpoint_interval=5,
        last_checkpoint_step=0,
    )
    assert (manager.save() is None) == tf_differences.TAKES_LAST_STEP_0


def test_data_types_are_missing_from_older_versions():
    numbers = {n for n in types_pb2.DataType.values() if 0 < n < 100}  # above: references
    missing = {dtype.name for n, dtype in BY_NUMBER.items() if n not in numbers}
    assert missing == tf_differences.MISSING_TYPES
