"""Reading values: fast where it can be, right everywhere; private TensorFlow API is as expected."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

from distckpt.runtime.gc_pause import paused
from distckpt.state.variable_reads import (
    copy_of,
    has_shape,
    on_host,
    read,
    read_variables,
    share_on_read,
)

from .arrays import DTYPES, array
from .conftest import bits, take


def serialized(variable):
    """The (trackable, value) pairs that a checkpoint of `variable` consists of."""
    ((value),) = variable._serialize_to_tensors().values()
    return value


def address(tensor):
    return tensor._numpy().__array_interface__["data"][0]


def test_variables_of_all_types_and_devices_are_read_in_one_go_in_their_order():
    variables = [
        tf.Variable(tf.cast([number, 2], dtype))
        for number in range(70)
        for dtype in ("float32", "int64", "bfloat16")
    ]
    variables.insert(5, tf.Variable(["text", "more"]))
    variables.insert(9, tf.Variable(tf.zeros([0, 3])))
    read = read_variables(variables)
    assert [bits(tensor) for tensor in read] == [bits(v) for v in variables]
    assert read_variables([]) == []


def test_a_variable_is_read_without_copying_and_keeps_its_held_value():
    variable = tf.Variable(tf.zeros([100, 100]))
    held, again = read_variables([variable, variable])
    assert address(held) == address(again)
    variable.assign_add(tf.ones([100, 100]))
    assert not held.numpy().any()
    assert address(read_variables([variable])[0]) != address(held)


def test_a_sparse_update_makes_reads_copy_until_it_is_told_not_to():
    def update(row):
        variable.scatter_update(tf.IndexedSlices(tf.ones([1, 1000]), [row]))

    variable = tf.Variable(tf.zeros([100, 1000]))
    update(1)
    copied, again = read_variables([variable, variable])
    assert address(copied) != address(again)
    share_on_read(variable)
    held, again = read_variables([variable, variable])
    assert address(held) == address(again)
    update(2)
    assert held.numpy()[:, 0].tolist() == [0.0, 1.0, *98 * [0.0]]
    assert variable.numpy()[2, 0] == 1.0


def test_a_variable_that_is_not_initialised_has_the_shape_of_none():
    for dtype in (tf.float32, tf.int32, tf.string):
        (tensor,) = read_variables([UninitializedVariable(shape=[2], dtype=dtype)])
        assert has_shape(tensor, (0,))


@pytest.mark.parametrize("dtype", [*DTYPES, "int4", "qint8", "qint32"])
def test_a_copy_is_in_memory_of_its_own(dtype):
    if dtype.startswith("qint"):
        tensor = tf.quantization.quantize([[0.1, 0.9]], 0.0, 1.0, tf.as_dtype(dtype)).output
    elif dtype == "int4":
        tensor = tf.cast([[1, -3], [2, 0]], dtype)
    else:
        tensor = tf.constant(array(dtype, (64, 16), 1), tf.as_dtype(dtype))
    for value in (tensor,) if dtype == "int4" else (tensor, tensor[0, 0], tensor[:0]):
        copy = copy_of(value)
        assert bits(copy) == bits(value)
        assert copy.dtype == value.dtype
    assert dtype == "string" or address(copy_of(tensor)) != address(tensor)


def test_a_copy_of_some_rows_is_in_memory_of_its_own_whether_they_are_aligned_or_not():
    for columns in (16, 5):
        tensor = tf.random.uniform([64, columns])
        for rows in ((0, 32), (3, 64), (0, 64)):
            copy = copy_of(tensor, rows)
            assert bits(copy) == bits(tensor[rows[0] : rows[1]])
            assert not np.may_share_memory(copy._numpy(), tensor._numpy())


def test_the_rows_of_a_divided_variable_are_held_without_the_rest():
    variable = tf.Variable(tf.random.uniform([5000, 16]))
    for index in (0, 1):
        state, plan = take(tf.train.Checkpoint(v=variable), workers=2, index=index)
        (piece,) = [p for p in plan.shares[index] if p.entry.key.startswith("v/")]
        held = state._values[piece.identity]._numpy()
        assert np.array_equal(held, variable.numpy()[slice(*piece.rows)])
        assert not np.may_share_memory(held, variable.read_value()._numpy())


def test_the_state_of_an_iterator_is_held_as_it_is():
    iterator = iter(tf.data.Dataset.range(10))
    given = serialized(iterator)
    assert copy_of(given) is given


def test_shapes_and_places_of_tensors_are_known():
    assert has_shape(tf.zeros([2, 3]), (2, 3))
    assert not has_shape(tf.zeros([3, 2]), (2, 3))
    assert has_shape(tf.constant(1), ())
    tensor = tf.constant([1, 2])
    assert on_host(tensor) is tensor


def test_an_uninitialised_variable_has_no_value():
    variable = UninitializedVariable(shape=[2], dtype=tf.float32)
    assert read(serialized(variable)) is None


def test_a_value_that_is_a_tensor_or_a_variable_is_taken_as_it_is():
    tensor = tf.constant([1, 2])
    assert read(tensor) is tensor
    assert read(tf.Variable(5)).numpy() == 5
    assert read(None) is None


def test_a_handle_is_refused_before_saving_can_abort_the_process():
    class Handle(tf.train.Checkpoint):
        def _serialize_to_tensors(self):
            return {"handle": tf.Variable(0).handle}

        def _restore_from_tensors(self, tensors):
            raise NotImplementedError

    with pytest.raises(ValueError, match="resource"):
        take(tf.train.Checkpoint(handle=Handle()))


def test_held_values_are_those_of_the_moment_of_capture(tmp_path):
    variables = [tf.Variable(tf.fill([100], float(i))) for i in range(20)]
    state, plan = take(tf.train.Checkpoint(variables=variables))
    for variable in variables:
        variable.assign(tf.zeros_like(variable))
        variable.scatter_add(tf.IndexedSlices(tf.ones([1]), [3]))
    state.write(str(tmp_path), "shard", plan.shares[0])
    reader = tf.train.load_checkpoint(str(tmp_path / "shard"))
    for i in range(20):
        value = reader.get_tensor(f"variables/{i}/.ATTRIBUTES/VARIABLE_VALUE")
        np.testing.assert_array_equal(value, np.full(100, float(i), np.float32))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with paused():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
