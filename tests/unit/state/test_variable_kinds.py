"""Variables of TensorFlow, its strategies and Keras 3 are told from those that behave otherwise."""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable
from tensorflow.python.training.saving.saveable_object import SaveSpec

from distckpt.state.search.variable_kinds import distributed_variable, resource_variable
from distckpt.state.variable_reads import read, read_variables


def test_a_resource_variable_is_known_and_one_that_serializes_itself_is_not():
    class Doubled(type(tf.Variable(0.0))):
        def _serialize_to_tensors(self):
            return {
                "VARIABLE_VALUE": SaveSpec(
                    lambda: self.read_value() * 2.0, "", "x", dtype=self.dtype, device="CPU:0"
                )
            }

    variable, doubled = tf.Variable(3.0), Doubled(3.0)
    assert isinstance(variable, BaseResourceVariable)
    assert resource_variable(variable) is variable
    assert resource_variable(doubled) is None
    (value,) = doubled._serialize_to_tensors().values()
    assert float(read(value)) == 6.0


def test_the_variable_behind_a_keras_variable_is_known():
    variable = keras.Variable([1.0, 2.0])
    assert resource_variable(variable) is variable.value
    (tensor,) = read_variables([resource_variable(variable)])
    assert tensor.numpy().tolist() == [1.0, 2.0]


def test_a_mirrored_variable_is_known_as_distributed():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = tf.Variable([1.0])
    assert distributed_variable(mirrored, None) is mirrored
    assert distributed_variable(tf.Variable([1.0]), None) is None
    assert resource_variable(mirrored) is mirrored.values[0]
