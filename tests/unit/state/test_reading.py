"""Reading values: fast where it can be, right everywhere; private TensorFlow API is as expected."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable
from tensorflow.python.training.saving.saveable_object import SaveSpec

from distckpt.roles.collector import paused
from distckpt.state.capture import capture
from distckpt.state.reading import distributed_variable, read


def serialized(variable):
    """The (trackable, value) pairs that a checkpoint of `variable` consists of."""
    ((value),) = variable._serialize_to_tensors().values()
    return value


def test_a_resource_variable_is_read_by_one_op_and_shares_its_buffer():
    variable = tf.Variable([1.0, 2.0])
    spec = serialized(variable)
    assert isinstance(spec, SaveSpec)
    assert isinstance(variable, BaseResourceVariable)
    held = read(spec, variable)
    variable.assign_add([10.0, 10.0])
    np.testing.assert_array_equal(held.numpy(), [1.0, 2.0])


def test_a_subclass_that_serializes_itself_is_asked():
    class Doubled(type(tf.Variable(0.0))):
        def _serialize_to_tensors(self):
            return {
                "VARIABLE_VALUE": SaveSpec(
                    lambda: self.read_value() * 2.0, "", "x", dtype=self.dtype, device="CPU:0"
                )
            }

    variable = Doubled(3.0)
    assert float(read(serialized(variable), variable)) == 6.0


def test_an_uninitialised_variable_has_no_value():
    from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

    variable = UninitializedVariable(shape=[2], dtype=tf.float32)
    assert read(serialized(variable), variable) is None


def test_a_mirrored_variable_is_known_as_distributed():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = tf.Variable([1.0])
    assert distributed_variable(mirrored, None) is mirrored
    assert distributed_variable(tf.Variable([1.0]), None) is None


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
        capture(tf.train.Checkpoint(handle=Handle()), workers=1, split="all")


def test_held_values_are_those_of_the_moment_of_capture(tmp_path):
    variables = [tf.Variable(tf.fill([100], float(i))) for i in range(20)]
    state = capture(tf.train.Checkpoint(variables=variables), workers=1, split="all")
    for variable in variables:
        variable.assign(tf.zeros_like(variable))
        variable.scatter_add(tf.IndexedSlices(tf.ones([1]), [3]))
    from distckpt.core.plan import make_plan

    plan = make_plan(state.entries, 1)
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
