"""Round trips of variables of all types, shapes and divisions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.distribute.sharded_variable import ShardedVariable
from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

from .arrays import DTYPES, SHAPES, array, of_variables
from .conftest import bits, program


@pytest.mark.parametrize("dtype", DTYPES)
def test_variables_of_every_type_and_shape(round_trips, dtype):
    def build(number):
        return of_variables(
            *(tf.Variable(tf.constant(array(dtype, s, number), tf.as_dtype(dtype))) for s in SHAPES)
        )

    round_trips.run(build)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "bool", "int8", "complex128"])
def test_variables_that_workers_divide(round_trips, observer, dtype):
    def build(number):
        value = tf.constant(array(dtype, (7, 9001), number), tf.as_dtype(dtype))
        return of_variables(tf.Variable(value))

    round_trips.run(build)
    manifest = observer.verify(round_trips.root / "shared", "ckpt-1")
    (entry,) = [e for e in manifest.entries if e.key.startswith("all/0/")]
    assert len(entry.pieces) > 1


def test_unusual_floats(round_trips):
    def build(number):
        values = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e-310, number]
        payload = np.frombuffer(b"\x01\x02\x03\x00\x00\x00\xf8\x7f", np.float64)
        return of_variables(tf.Variable(np.concatenate([values, payload])))

    round_trips.run(build)


def test_a_variable_whose_shape_changes(round_trips):
    def build(number):
        variable = tf.Variable(tf.zeros([1, 2]), shape=tf.TensorShape(None))
        variable.assign(tf.ones([number + 3, number]))
        return of_variables(variable)

    round_trips.run(build)


def test_an_uninitialised_variable_is_left_out(make, observer, tmp_path):
    """TensorFlow leaves it out, too; then a program that has it cannot restore the checkpoint."""
    empty = UninitializedVariable(shape=[2], dtype=tf.float32)
    checkpoint = tf.train.Checkpoint(empty=empty, full=tf.Variable(5))
    plain = tf.train.CheckpointManager(checkpoint, tmp_path / "plain", 3).save()
    checkpoint.save_counter.assign(0)
    ours = make(checkpoint, tmp_path / "ours").save()
    assert observer.contents(ours) == observer.contents(plain)
    for path in (ours, plain):
        with pytest.raises(tf.errors.NotFoundError, match="empty"):
            checkpoint.restore(path)
        copy = tf.train.Checkpoint(full=tf.Variable(0))
        copy.restore(path)
        assert copy.full.numpy() == 5


def test_a_variable_split_by_a_partitioner(round_trips, observer):
    """Written as slices of one tensor, and restored to another division."""

    def build(number):
        parts = [3, 2, 1] if number == 1 else [1, 5]
        values = tf.reshape(tf.range(12.0) * number, [6, 2])
        shards = ShardedVariable([tf.Variable(part) for part in tf.split(values, parts)])
        return program(
            tf.train.Checkpoint(table=shards), lambda: bits(tf.concat(list(shards.variables), 0))
        )

    paths = round_trips.run(build)
    key = "table/.ATTRIBUTES/VARIABLE_VALUE"
    assert observer.contents(paths["ours"])[key][1] == [6, 2]
