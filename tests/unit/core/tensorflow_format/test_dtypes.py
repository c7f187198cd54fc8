from __future__ import annotations

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from distckpt.core.tensorflow_format.dtypes import BY_NUMBER

from ...kit.tf_differences import MISSING_TYPES


def test_the_types_are_those_of_tensorflow():
    numbers = {n for n in types_pb2.DataType.values() if 0 < n < 100}  # above: references
    theirs = {n: (tf.as_dtype(n).name, tf.as_dtype(n).size or None) for n in numbers}
    known = {n: dtype for n, dtype in BY_NUMBER.items() if dtype.name not in MISSING_TYPES}
    assert theirs == known
