"""A background save holds the values of the moment of ``save()``, and nothing afterwards."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf

from distckpt import errors
from distckpt.core import layout
from distckpt.state.capture import Capture

from .conftest import ASYNC, value


class Updated:
    """Variables of many kinds, which steps, slices and compiled code change."""

    def __init__(self):
        self.plain = tf.Variable(tf.random.stateless_uniform([200, 100], [1, 2]))
        self.sparse = tf.Variable(tf.random.stateless_uniform([200, 100], [3, 4]))
        self.trained = tf.Variable(tf.random.stateless_uniform([100, 100], [5, 6]))
        self.embedding = tf.Variable(tf.random.stateless_uniform([300, 80], [7, 8]))
        self.compiled = tf.Variable(tf.random.stateless_uniform([100, 50], [9, 1]))
        self.whole = tf.Variable(tf.range(5000, dtype=tf.int64))
        self.text = tf.Variable(["a", "b"])
        self.sgd = tf.keras.optimizers.SGD(0.1, momentum=0.9)
        self.dense, self.slots = (tf.keras.optimizers.Adam(0.1) for _ in range(2))
        self.change()  # the optimizers make their variables
        self.checkpoint = tf.train.Checkpoint(**vars(self))

    @tf.function
    def train(self):
        with tf.GradientTape() as tape:
            rows = tf.nn.embedding_lookup(self.embedding, [1, 5, 5, 9])
            loss = tf.reduce_sum(self.trained**2) + tf.reduce_sum(rows**2)
        gradients = tape.gradient(loss, [self.trained, self.embedding])
        self.dense.apply_gradients([(gradients[0], self.trained)])
        self.slots.apply_gradients([(gradients[1], self.embedding)])
        self.sgd.apply_gradients([(tf.ones_like(self.trained), self.trained)])

    @tf.function(jit_compile=True)
    def compute(self):
        self.compiled.assign_add(tf.sin(self.compiled))

    def change(self):
        """Changes all of them."""
        self.plain.assign_add(tf.ones_like(self.plain))
        self.plain[3].assign(tf.zeros([100]))
        self.plain.assign(self.plain * 1.5)
        self.sparse.scatter_add(tf.IndexedSlices(tf.ones([2, 100]), [3, 7]))
        self.sparse.scatter_nd_update([[1, 2], [4, 5]], [7.0, 8.0])
        self.sparse.batch_scatter_update(
            tf.IndexedSlices(tf.ones([200, 1]), tf.ones([200, 1], tf.int32))
        )
        self.train()
        self.compute()
        self.whole.assign_sub(tf.ones_like(self.whole))
        self.text.assign([str(time.monotonic()), "c"])


def contents(path):
    reader = tf.train.load_checkpoint(path)
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}


def test_what_is_saved_is_of_the_moment_of_the_save_to_the_bit(make, tmp_path):
    state = Updated()
    checkpoint = state.checkpoint
    manager = make(checkpoint, tmp_path / "ours", None, options=ASYNC)
    for number in range(1, 16):
        checkpoint.save_counter.assign(number)
        expected = contents(checkpoint.write(str(tmp_path / "plain" / str(number))))
        checkpoint.save_counter.assign(number - 1)
        path = manager.save()
        state.change()
        while manager._operations.background.busy:
            state.change()
        manager.sync()
        found = contents(path)
        assert found.keys() == expected.keys()
        for key, want in expected.items():
            if not key.startswith("_"):
                np.testing.assert_array_equal(found[key], want, key)


def test_variables_that_are_deleted_or_rebuilt_meanwhile_are_saved(make, gate, tmp_path):
    checkpoint = tf.train.Checkpoint(gone=tf.Variable(1.0), layers=[tf.Variable(2.0)])
    manager = make(checkpoint, tmp_path, options=ASYNC)
    for expected in (1, 2):
        gate.open.clear()
        path = manager.save()
        if expected == 1:
            del checkpoint.gone
            checkpoint.layers = [tf.Variable(20.0), tf.Variable(30.0)]
        gc.collect()
        gate.open.set()
        manager.sync()
        keys = {k.split("/.ATT")[0] for k in contents(path)} - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        if expected == 1:
            assert keys == {"gone", "layers/0", "save_counter"}
            assert (value(path, "gone"), value(path, "layers/0")) == (1.0, 2.0)
        else:
            assert keys == {"layers/0", "layers/1", "save_counter"}
            assert value(path, "layers/0") == 20.0


@pytest.mark.parametrize("where", [layout.PROBE_FILE, "index"])
def test_nothing_is_held_after_a_save_be_it_good_or_bad(make, gate, tmp_path, monkeypatch, where):
    held = []
    take = Capture.take

    def watching(self, *args):
        state, plan = take(self, *args)
        values = [v for (key, _), v in state._values.items() if not key.startswith("_")]
        held.append([weakref.ref(value) for value in values])
        return state, plan

    monkeypatch.setattr(Capture, "take", watching)
    checkpoint = tf.train.Checkpoint(value=tf.Variable(tf.zeros([1000])))
    manager = make(checkpoint, tmp_path, options=ASYNC)
    manager.save()
    manager.sync()
    gate.fails_at = where
    manager.save()
    manager._operations.background.wait()
    gc.collect()
    assert [len(of_a_save) for of_a_save in held] == [2, 2]
    assert [[ref() for ref in of_a_save if ref() is not None] for of_a_save in held] == [[], []]
    with pytest.raises(errors.DistckptError):
        manager.sync()


def test_state_that_tensorflow_must_read_itself_is_saved_before_it_returns(
    make, tmp_path, checkpoint, caplog
):
    options = tf.train.CheckpointOptions(
        enable_async=True,
        experimental_sharding_callback=tf.train.experimental.ShardByTaskPolicy(),
    )
    manager = make(checkpoint, tmp_path)
    path = manager.save(options=options)
    assert manager.latest_checkpoint == path
    assert "saved while training waits" in caplog.text
