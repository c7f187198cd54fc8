"""Whether the tracked objects have changed is noticed, always; that they have not, too."""

from __future__ import annotations

import gc
import weakref

import keras
import pytest
import tensorflow as tf
from tensorflow.python.trackable.base import Trackable

from distckpt.state.search.graph import GraphSnapshot
from distckpt.state.search.object_walk import ObjectWalk


def snapshot(checkpoint):
    return GraphSnapshot(ObjectWalk(checkpoint._saver._graph_view))


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = [tf.Variable(1.0), tf.Variable(2.0)]
        self.named = {"a": tf.Variable(3.0), "b": (tf.Variable(4.0), tf.Variable(5.0))}
        self.inner = tf.Module()
        self.inner.value = tf.Variable(6.0)
        self.of_keras = [keras.Variable(7.0), keras.Variable(8.0)]


def swap(net):
    net.named["a"], net.inner.value = net.inner.value, net.named["a"]


CHANGES = {
    "a list grew": lambda net, _: net.weights.append(tf.Variable(0.0)),
    "a dictionary grew": lambda net, _: net.named.update(c=tf.Variable(0.0)),
    "a variable was replaced": lambda net, _: setattr(net.inner, "value", tf.Variable(6.0)),
    "a layer was replaced": lambda net, _: setattr(net, "inner", tf.Module()),
    "an attribute went": lambda net, _: delattr(net.inner, "value"),
    "an attribute came": lambda net, _: setattr(net.inner, "more", tf.Variable(0.0)),
    "two changed places": lambda net, _: swap(net),
    "one is tracked twice": lambda net, _: setattr(net, "again", net.weights[0]),
    "a list was replaced by an equal one": lambda net, _: setattr(
        net, "weights", [net.weights[0], net.weights[1]]
    ),
    "a variable got a child": lambda net, _: net.weights[0]._track_trackable(
        tf.Variable(0.0), "child"
    ),
    "a variable of Keras was replaced": lambda net, _: setattr(
        net, "of_keras", [net.of_keras[0], keras.Variable(8.0)]
    ),
    "a variable of Keras got a child": lambda net, _: net.of_keras[0]._track_trackable(
        tf.Variable(0.0), "child"
    ),
    "the checkpoint tracks more": lambda _, root: setattr(root, "more", tf.Variable(0.0)),
    "the checkpoint tracks another": lambda _, root: setattr(root, "net", Net()),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_change_is_noticed(what):
    net = Net()
    root = tf.train.Checkpoint(net=net, step=tf.Variable(0))
    root.save_counter.assign(0)
    seen = snapshot(root)
    assert seen.comparable
    assert seen.unchanged()
    CHANGES[what](net, root)
    assert not seen.unchanged()
    assert snapshot(root).unchanged()


@pytest.mark.parametrize("what", [w for w in CHANGES if not w.startswith("the checkpoint")])
def test_a_change_is_noticed_below_a_root(what):
    net = Net()
    root = tf.train.Checkpoint(root=net, step=tf.Variable(0))
    root.save_counter.assign(0)
    seen = snapshot(root)
    assert seen.unchanged()
    CHANGES[what](net, root)
    assert not seen.unchanged()


def test_training_and_saving_change_nothing(tmp_path):
    net = Net()
    root = tf.train.Checkpoint(net=net)
    root.save(tmp_path / "first")
    seen = snapshot(root)
    for variable in net.variables:
        variable.assign_add(1.0)
    root.save(tmp_path / "second")
    assert seen.unchanged()


def test_a_keras_model_and_its_optimizer_are_compared(tmp_path):
    import keras

    model = keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    optimizer = keras.optimizers.Adam()
    root = tf.train.Checkpoint(model=model, optimizer=optimizer)
    seen = snapshot(root)
    assert seen.comparable
    assert seen.unchanged()
    optimizer.build(model.trainable_variables)  # which makes the slot variables
    assert not seen.unchanged()
    seen = snapshot(root)
    model.compile(optimizer, loss="mse")
    model.fit(tf.ones([4, 3]), tf.ones([4, 1]), verbose=0)
    again = snapshot(root)
    model.fit(tf.ones([4, 3]), tf.ones([4, 1]), verbose=0)
    assert again.unchanged()


def test_objects_are_not_kept_alive():
    net = Net()
    root = tf.train.Checkpoint(net=net)
    seen = snapshot(root)
    gone = weakref.ref(net.inner)
    net.inner = tf.Module()
    gc.collect()
    assert gone() is None
    assert not seen.unchanged()


def test_optimizers_of_the_old_kind_cannot_be_compared():
    """Their slot variables are nobody's children."""
    optimizer = tf.compat.v1.train.AdamOptimizer()
    root = tf.train.Checkpoint(optimizer=optimizer)
    assert not snapshot(root).comparable


def test_an_object_that_makes_its_children_anew_counts_as_changed():
    class Fresh(tf.Module):
        def _trackable_children(self, save_type="checkpoint", **kwargs):
            return {"made": tf.Module()}

    root = tf.train.Checkpoint(fresh=Fresh())
    assert not snapshot(root).unchanged()


def test_an_object_that_cannot_tell_its_children_counts_as_changed():
    net = Net()
    root = tf.train.Checkpoint(net=net)
    seen = snapshot(root)
    net.weights.reverse()
    net.weights.insert(0, tf.Variable(0.0))  # TensorFlow refuses to save a list changed so
    assert not seen.unchanged()


def test_the_private_api_is_as_expected():
    variable = tf.Variable(1.0)
    assert type(variable)._trackable_children is Trackable._trackable_children
    assert type(variable)._checkpoint_dependencies is Trackable._checkpoint_dependencies
    variable._track_trackable(tf.Variable(2.0), "child")
    assert [name for name, _ in vars(variable)["_self_unconditional_checkpoint_dependencies"]] == [
        "child"
    ]
