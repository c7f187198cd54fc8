"""The order in which objects are restored, where one of them restores itself in its own way."""

from __future__ import annotations

import pytest
import tensorflow as tf

from distckpt.state.loading import variable_restore
from distckpt.state.loading.program_match import match
from distckpt.state.loading.restore import restore


class Adding(tf.__internal__.tracking.Trackable):
    """Adds to another object's variable as it is restored."""

    def __init__(self, variable):
        self.variable = variable

    def _serialize_to_tensors(self):
        return {"VARIABLE_VALUE": tf.constant(10.0)}

    def _restore_from_tensors(self, tensors):
        return self.variable.assign_add(tensors["VARIABLE_VALUE"])


def compare_with_tensorflow(program, path):
    """Checks that nothing is restored directly, and that the result is TensorFlow's.

    ``program(value)`` returns the variable that is compared, and the checkpoint.
    """

    def restored(call):
        variable, checkpoint = program(0.0)
        call(checkpoint)
        return variable.numpy()

    path = program(1.0)[1].write(path)
    copy = program(0.0)[1]
    assert not variable_restore._targets(match(copy, path))
    assert restored(lambda c: restore(c, path)) == restored(lambda c: c.restore(path))


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_order_counts_if_a_class_of_the_program_restores_itself(tmp_path, names):
    first, second = names

    def program(value):
        variable = tf.Variable(value)
        return variable, tf.train.Checkpoint(**{first: variable, second: Adding(variable)})

    compare_with_tensorflow(program, str(tmp_path / "ckpt"))


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_order_counts_if_a_function_of_a_saved_model_restores(tmp_path, names):
    """Loading a SavedModel gives an object such functions as attributes."""
    first, second = names

    def program(value):
        variable, adding = tf.Variable(value), tf.Module()
        ten = tf.function(lambda: {"VARIABLE_VALUE": tf.constant(10.0)})
        add = tf.function(lambda tensors: variable.assign_add(tensors["VARIABLE_VALUE"]))
        adding._serialize_to_tensors = ten
        adding._restore_from_tensors = add.get_concrete_function(
            {"VARIABLE_VALUE": tf.TensorSpec([], tf.float32)}
        )
        return variable, tf.train.Checkpoint(**{first: variable, second: adding})

    compare_with_tensorflow(program, str(tmp_path / "ckpt"))
