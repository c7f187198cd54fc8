"""What a save holds, how workers share it, and what is left to TensorFlow."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorflow.python.checkpoint import graph_view, save_util

from distckpt.core.protocol.write_plan import OBJECT_GRAPH_KEY
from distckpt.errors import UnsupportedOptionError
from distckpt.state.capture import TensorState
from distckpt.state.delegated import DelegatedState

from .arrays import of_variables
from .conftest import take


def test_the_entries_are_those_that_tensorflow_would_write():
    checkpoint = of_variables(tf.Variable([1.0, 2.0]), tf.Variable("text")).checkpoint
    checkpoint.save_counter.assign(3)
    state, plan = take(checkpoint)
    assert isinstance(state, TensorState)
    expected, _, _, _ = save_util.serialize_graph_view(graph_view.ObjectGraphView(checkpoint))
    keys = {key for by_key in expected.values() for key in by_key}
    assert {e.key for e in plan.entries} == keys | {OBJECT_GRAPH_KEY}
    sizes = {e.key.split("/.")[0]: (e.dtype, e.shape, e.nbytes) for e in plan.entries}
    assert sizes["all/0"] == ("float32", (2,), 8)
    assert sizes["all/1"] == ("string", (), 16)
    assert sizes["save_counter"] == ("int64", (), 8)


def test_only_what_is_equal_everywhere_is_shared():
    checkpoint = of_variables(tf.Variable([1.0]), tf.Variable("text")).checkpoint
    checkpoint.save_counter.assign(3)
    chief_only = {
        split: {
            e.key.split("/.")[0]
            for e in take(checkpoint, workers=2, split=split)[1].entries
            if e.chief_only
        }
        for split in ("all", "distributed")
    }
    assert chief_only["all"] == {"all/1", OBJECT_GRAPH_KEY}
    assert chief_only["distributed"] == {"all/0", "all/1", "save_counter", OBJECT_GRAPH_KEY}


def test_what_only_the_chief_writes_may_be_of_any_size():
    def plan(size):
        table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
        table.insert(tf.range(size, dtype=tf.int64), tf.range(size, dtype=tf.int64))
        checkpoint = tf.train.Checkpoint(table=table, value=tf.Variable(1))
        return take(checkpoint, workers=2, split="distributed")[1]

    assert plan(2).fingerprint == plan(30_000).fingerprint


def test_a_worker_holds_its_own_share_and_lets_go_of_what_is_written(tmp_path):
    checkpoint = of_variables(tf.Variable([1.0]), tf.Variable([2.0]), tf.Variable([3.0])).checkpoint
    state, plan = take(checkpoint, workers=2, index=1)
    share = plan.shares[1]
    assert set(state._values) == {piece.identity for piece in share}
    assert len(state._values) < len(plan.entries)
    state.write(str(tmp_path), "part", share[:1])
    assert set(state._values) == {piece.identity for piece in share[1:]}


def test_a_sharding_callback_is_left_to_tensorflow_and_to_one_worker():
    checkpoint = of_variables(tf.Variable([1.0])).checkpoint
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.ShardByTaskPolicy()
    )
    state, _ = take(checkpoint, options=options)
    assert isinstance(state, DelegatedState)
    assert not state.held
    with pytest.raises(UnsupportedOptionError, match="shared between 2 workers"):
        take(checkpoint, workers=2, options=options)
