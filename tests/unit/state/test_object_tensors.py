"""What is to be saved is exactly what TensorFlow would save, whatever the objects are."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from tensorflow.python.checkpoint import save_util
from tensorflow.python.ops.resource_variable_ops import ResourceVariable, UninitializedVariable

from distckpt.state.search import object_tensors
from distckpt.state.search.object_walk import ObjectWalk
from distckpt.state.search.tensor_search import saving
from distckpt.state.search.variable_kinds import PlainVariables

from ..kit.python_state import Settings
from .serialized import compare
from .test_savers import Filed
from .test_tracked_objects import Box, Legacy


def module(**attributes):
    made = tf.Module()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def partitioned():
    creator = tf.distribute.experimental.partitioners.FixedShardsPartitioner(2)
    parts = [tf.Variable(part) for part in tf.split(tf.range(6.0), creator([6], tf.float32)[0])]
    return list(parts)


def circle():
    first, second = module(value=tf.Variable(1.0)), module(value=tf.Variable(2.0))
    first.other, second.other = second, first
    return first


def below_a_variable():
    variable = tf.Variable(1.0)
    variable._track_trackable(module(value=tf.Variable([2])), "child")
    return variable


def saves_itself():
    variable = tf.Variable(1.0)
    variable._serialize_to_tensors = lambda: {"own": tf.constant([7.0])}
    return variable


def named_the_old_way():
    variable = tf.Variable(1.0)
    variable._LEGACY_SAVEABLE_NAME = "OLD"
    return variable


def saved_in_slices():
    variable = tf.Variable([1.0, 2.0])
    variable._set_save_slice_info(tf.Variable.SaveSliceInfo("whole", [4], [2], [2]))
    return variable


class Doubled(keras.Variable):
    def _serialize_to_tensors(self):
        return {"doubled": self.value * 2.0}


def below_a_keras_variable():
    variable = keras.Variable(1.0)
    variable._track_trackable(module(value=tf.Variable([2])), "child")
    return variable


def with_an_inner_variable(inner):
    variable = keras.Variable(tf.zeros(inner.shape), dtype=inner.dtype.name)
    variable._value = inner
    return variable


def keras_variable_that_saves_itself():
    variable = keras.Variable(1.0)
    variable._serialize_to_tensors = lambda: {"own": tf.constant([7.0])}
    return variable


class Odd(tf.Module):
    """Tracks under names that keys cannot contain."""

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        return {"a/b": self.one, "a.b": self.two, "": self.three}

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (tf.Variable(n) for n in range(3))


class Fruitless(tf.Module):
    """Has a method that slot variables of old optimizers come from, and none of these."""

    def get_slot_names(self):
        return []


OBJECTS = {
    "a variable": lambda: tf.Variable(1.0),
    "many": lambda: [tf.Variable([float(n)] * (n % 3)) for n in range(70)],
    "types": lambda: [
        tf.Variable(tf.zeros([2, 3], dtype))
        for dtype in ("float16", "bfloat16", "int64", "bool", "complex64", "qint8", "string")
    ],
    "variables of Keras": lambda: [
        keras.Variable(tf.zeros([2, n], dtype), dtype=dtype, trainable=False)
        for n, dtype in enumerate(["float32", "bfloat16", "int64", "bool", "float64", "uint8"])
    ],
    "a shared variable of Keras": lambda: (lambda v: [v, {"again": v}, v.value])(keras.Variable(1)),
    "below a variable of Keras": below_a_keras_variable,
    "a variable of Keras that saves itself": keras_variable_that_saves_itself,
    "a variable of Keras of another class": lambda: Doubled(3.0),
    "a part of a variable within Keras": lambda: with_an_inner_variable(saved_in_slices()),
    "a variable that saves itself within Keras": lambda: with_an_inner_variable(saves_itself()),
    "an uninitialised variable within Keras": lambda: with_an_inner_variable(
        UninitializedVariable(shape=[2], dtype=tf.float32)
    ),
    "large": lambda: tf.Variable(tf.zeros([300, 100])),
    "without a fixed shape": lambda: tf.Variable([1.0], shape=[None]),
    "uninitialised": lambda: UninitializedVariable(shape=[2], dtype=tf.float32),
    "shared": lambda: (lambda v: [v, {"again": v}, v])(tf.Variable([1, 2])),
    "containers": lambda: {
        "list": [tf.Variable(1), [tf.Variable(2)]],
        "tuple": (tf.Variable(3), {"x": tf.Variable(4)}),
        "empty": [],
    },
    "modules": lambda: module(a=module(), b=module(c=tf.Variable(1.0))),
    "a circle": circle,
    "below a variable": below_a_variable,
    "a variable that saves itself": saves_itself,
    "a variable named the old way": named_the_old_way,
    "a part of a variable": saved_in_slices,
    "odd names": Odd,
    "a table": lambda: tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1),
    "a dense table": lambda: tf.lookup.experimental.DenseHashTable(tf.int64, tf.int64, -1, -2, -3),
    "a constant": lambda: module(it=tf.constant(1.0)),
    "Python's state": lambda: [Settings(a=1), tf.Variable(1), Settings(b=2), Box(5)],
    "a generator": lambda: tf.random.Generator.from_seed(1),
    "an iterator": lambda: iter(tf.data.Dataset.range(3)),
    "the old way": lambda: [Legacy(1), tf.Variable(2), Box(3), Legacy(4)],
    "a layer": lambda: tf.keras.layers.Dense(3),
}
# Graphs that are left to TensorFlow.
LEFT = {
    "a saver": lambda: [Filed(1), tf.Variable(2)],
    "an old optimizer": lambda: slots(),
    "an object like one": Fruitless,
}


def slots():
    variable = tf.Variable([1.0, 2.0])
    optimizer = tf.compat.v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tf.constant([1.0, 1.0]), variable)])
    return module(optimizer=optimizer, variable=variable)


@pytest.mark.parametrize("what", list(OBJECTS))
def test_the_same_is_found(what):
    assert not compare(tf.train.Checkpoint(it=OBJECTS[what](), step=tf.Variable(3)))


@pytest.mark.parametrize("what", list(LEFT))
def test_what_is_left_to_tensorflow_is_the_same(what):
    assert compare(tf.train.Checkpoint(it=LEFT[what](), step=tf.Variable(3)))


@pytest.mark.parametrize("split", ["all", "distributed"])
def test_the_same_is_found_of_all_together(split):
    everything = {name.replace(" ", "_"): make() for name, make in OBJECTS.items()}
    for name in ("uninitialised", "an_uninitialised_variable_within_Keras"):
        del everything[name]
    del everything["without_a_fixed_shape"]
    checkpoint = tf.train.Checkpoint(it=everything)
    checkpoint.save_counter.assign(2)
    assert not compare(checkpoint, split=split)


def test_the_same_is_found_below_a_root_with_more_beside_it():
    net = module(w=tf.Variable([1.0]), inner=[tf.Variable(2)])
    assert not compare(tf.train.Checkpoint(root=net, step=tf.Variable(3), again=net.w))
    assert not compare(tf.train.Checkpoint(root=tf.Variable(1.0)))
    assert not compare(tf.train.Checkpoint(root=below_a_variable(), step=tf.Variable(3)))


def test_the_same_is_found_after_each_change():
    net = module(w=[tf.Variable([1.0])], named={})
    checkpoint = tf.train.Checkpoint(net=net)
    assert not compare(checkpoint)
    for change in (
        lambda: net.w.append(tf.Variable(2.0)),
        lambda: net.named.update(a=tf.Variable(3.0), b=[net.w[0]]),
        lambda: setattr(net, "w", (net.w[1], net.w[0])),
        lambda: checkpoint.save_counter.assign(0),
        lambda: delattr(net, "named"),
        lambda: net.w[0]._track_trackable(tf.Variable(1), "child"),
    ):
        change()
        assert not compare(checkpoint)


@pytest.mark.parametrize("strategy", ["mirrored", "one device"])
def test_the_same_is_found_of_variables_of_a_strategy(strategy):
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    scope = {"mirrored": tf.distribute.MirroredStrategy(["CPU:0"]), "one device": one}[strategy]
    with scope.scope():
        values = [
            tf.Variable([1.0]),
            tf.Variable(1, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA),
            tf.Variable(
                2.0,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            ),
        ]
    assert not compare(tf.train.Checkpoint(values=values, outside=tf.Variable(1)))
    assert not compare(tf.train.Checkpoint(values=values), split="distributed")


@pytest.mark.parametrize("name", ["SGD", "Adam", "Ftrl"])
def test_the_same_is_found_of_a_model_and_its_optimizer(name):
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(4), tf.keras.layers.BatchNormalization(), tf.keras.layers.Dense(1)]
    )
    optimizer = getattr(tf.keras.optimizers, name)()
    model.compile(optimizer, loss="mse", metrics=["mae"])
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=tf.Variable(0))
    assert not compare(checkpoint)
    model.fit(tf.ones([4, 3]), tf.ones([4, 1]), verbose=0)
    assert not compare(checkpoint)
    assert not compare(tf.train.Checkpoint(model))


def test_usual_variables_are_not_left_to_tensorflow(monkeypatch):
    usual = [tf.Variable(1.0), keras.Variable(2.0), keras.Variable([3], dtype="int32")]
    checkpoint = tf.train.Checkpoint(it=usual, box=Box(1))
    asked = []
    ask = save_util._get_and_write_tensors_to_serialize
    monkeypatch.setattr(
        object_tensors.save_util,
        "_get_and_write_tensors_to_serialize",
        lambda data, *rest: asked.extend(data) or ask(data, *rest),
    )
    with saving():
        object_tensors.serialize(ObjectWalk(checkpoint._saver._graph_view))
    assert [type(data.trackable) for data in asked] == [Box]


def test_variables_are_left_to_tensorflow_where_their_class_is_changed(monkeypatch):
    def mine(self):
        return {"mine": tf.constant(1.0)}

    checkpoint = tf.train.Checkpoint(it=tf.Variable(1.0))
    monkeypatch.setattr(ResourceVariable, "_serialize_to_tensors", mine)
    assert PlainVariables().find(checkpoint.it) is None
    assert not compare(checkpoint)


def test_variables_of_keras_are_left_to_tensorflow_where_their_class_is_changed(monkeypatch):
    variable = keras.Variable(1.0)
    checkpoint = tf.train.Checkpoint(it=variable)
    assert PlainVariables().find(variable) is variable.value
    monkeypatch.setattr(keras.Variable, "_serialize_to_tensors", lambda self: {"mine": self.value})
    assert PlainVariables().find(variable) is None
    assert not compare(checkpoint)


def test_a_variable_of_keras_that_has_another_value_for_now_is_left_to_tensorflow():
    variable = keras.Variable(1.0)
    with keras.StatelessScope(state_mapping=[(variable, tf.constant(2.0))]):
        assert PlainVariables().find(variable) is None
    assert PlainVariables().find(variable) is variable.value


def test_a_destroyed_variable_counts_as_uninitialised():
    gone = tf.Variable([1.0])
    tf.raw_ops.DestroyResourceOp(resource=gone.handle)
    assert not compare(tf.train.Checkpoint(it=[tf.Variable(1.0), gone, tf.Variable(2.0)]))
