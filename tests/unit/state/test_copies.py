"""The checksum of a copy is what the index of its writer has for it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from distckpt.core.protocol import replica_check
from distckpt.core.protocol.replica_check import Check
from distckpt.core.tensorflow_format import index_reader
from distckpt.state.capture import Capture

ALL = Check("error")
DTYPES = ["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32"]
DTYPES += ["uint32", "int64", "uint64", "complex64", "complex128", "bool"]


def variables():
    values = np.arange(6000).reshape(300, 20) % 120
    found = {dtype: tf.Variable(tf.cast(values, dtype)) for dtype in DTYPES if dtype != "bool"}
    found["bool"] = tf.Variable(values > 60)
    found["scalar"] = tf.Variable(3.5)
    found["empty"] = tf.Variable(tf.zeros((0, 4)))
    found["large"] = tf.Variable(tf.random.normal((1000, 700)))
    return found


def captured(checkpoint, index, check=ALL, workers=2):
    return Capture(checkpoint, workers=workers, index=index, split="all").take(check=check)


def written(folder, checkpoint, workers=2):
    """Returns the checksums in the indexes of all shares, by key and slice."""
    found = {}
    for index in range(workers):
        state, plan = captured(checkpoint, index, Check(), workers)
        for prefix in state.write(str(folder), f"shard-{index}", plan.shares[index]):
            stored = index_reader.read_index((folder / f"{prefix}.index").read_bytes()).stored
            found |= {(entry.key, entry.spec): entry.crc32c for entry in stored}
    return found


@pytest.mark.parametrize("workers", [2, 3])
def test_copies_have_the_checksums_that_their_writers_have(tmp_path, workers):
    checkpoint = tf.train.Checkpoint(**variables())
    expected = written(tmp_path, checkpoint, workers)
    compared = set()
    for index in range(workers):
        state, plan = captured(checkpoint, index, workers=workers)
        pieces = replica_check.copies(plan, index, ALL)
        sums = [task() for task in state.copies()]
        assert sums == [expected[piece.identity] for piece in pieces]
        compared |= {piece.entry.key for piece in pieces}
    for name in variables():
        assert f"{name}/.ATTRIBUTES/VARIABLE_VALUE" in compared
    assert any(piece.rows for piece in pieces), "some entry is divided"


def test_what_is_held_is_that_of_the_moment(tmp_path):
    checkpoint = tf.train.Checkpoint(**variables())
    expected = written(tmp_path, checkpoint)
    state, plan = captured(checkpoint, 1)
    for variable in variables():
        if variable not in ("bool", "empty"):
            getattr(checkpoint, variable).assign_add(tf.ones_like(getattr(checkpoint, variable)))
    pieces = replica_check.copies(plan, 1, ALL)
    assert [task() for task in state.copies()] == [expected[p.identity] for p in pieces]


def test_what_is_no_variables_is_that_of_the_moment_too(tmp_path):
    class Given(tf.__internal__.tracking.AutoTrackable):
        def __init__(self):
            self.variable = tf.Variable(tf.ones([300, 20]))
            self.memory = np.ones([300, 20], np.float32)

        def _serialize_to_tensors(self):
            return {"x": tf.raw_ops.Identity(input=self.memory)}

    checkpoint = tf.train.Checkpoint(it=Given())
    expected = written(tmp_path, checkpoint)
    state, plan = captured(checkpoint, 1)
    checkpoint.it.memory.fill(2)
    pieces = replica_check.copies(plan, 1, ALL)
    assert any("/x" in piece.entry.key for piece in pieces)
    assert [task() for task in state.copies()] == [expected[p.identity] for p in pieces]


def test_a_variable_that_saw_a_sparse_update_is_compared_in_place(tmp_path):
    table = tf.Variable(tf.random.normal((5000, 16)))
    table.scatter_nd_update([[1]], [[0.0] * 16])
    checkpoint = tf.train.Checkpoint(table=table)
    expected = written(tmp_path, checkpoint)
    state, plan = captured(checkpoint, 1)
    pieces = replica_check.copies(plan, 1, ALL)
    assert [task() for task in state.copies()] == [expected[p.identity] for p in pieces]


def test_a_difference_in_one_bit_shows():
    first, second = tf.Variable(tf.ones((300, 20))), tf.Variable(tf.ones((300, 20)))
    second[0, 19].assign(np.nextafter(np.float32(1), np.float32(2)))
    sums = []
    for variable in (first, second):
        state, _ = captured(tf.train.Checkpoint(v=variable), 1)
        sums.append([task() for task in state.copies()])
    assert sums[0] != sums[1]


def test_without_the_check_nothing_is_held_and_nothing_computed():
    state, _ = captured(tf.train.Checkpoint(**variables()), 1, Check())
    assert state.copies() is None


def test_a_copy_is_let_go_of_as_soon_as_it_is_checked():
    state, _ = captured(tf.train.Checkpoint(**variables()), 1)
    for task in state.copies():
        task()
    assert all(tensor is None for _, tensor in state._copies._held)
    state.release()


def test_each_turn_holds_only_what_it_compares():
    capture = Capture(tf.train.Checkpoint(**variables()), workers=2, index=1, split="all")
    counts = [len(capture.take(check=Check("warn", 4, turn))[0].copies()) for turn in range(4)]
    every = len(capture.take(check=Check("warn"))[0].copies())
    assert sum(counts) == every
    assert max(counts) < every / 2
