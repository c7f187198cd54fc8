"""What there is to save is found out once, and used again only while it is true."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

from distckpt.state import capture as capture_module
from distckpt.state.capture import Capture
from distckpt.state.search import tensor_search


@pytest.fixture
def walks(monkeypatch):
    """Counts how often the tensors are found anew."""
    calls = []
    serialize = tensor_search.serialize

    def counting(walk):
        calls.append(1)
        return serialize(walk)

    monkeypatch.setattr(tensor_search, "serialize", counting)
    return calls


class Saves:
    """Saves a checkpoint again and again, and reads back what was written."""

    def __init__(self, checkpoint, folder, **kwargs):
        self.capture = Capture(checkpoint, workers=1, index=0, split="all", **kwargs)
        self.folder = folder
        self.number = 0

    def __call__(self):
        state, plan = self.capture.take()
        self.number += 1
        (stem,) = state.write(str(self.folder), f"part-{self.number}", plan.shares[0])
        reader = tf.train.load_checkpoint(f"{self.folder}/{stem}")
        types = reader.get_variable_to_dtype_map()
        keys = [k for k in types if not k.startswith("_") and types[k] != tf.variant]
        return {key.split("/.ATTRIBUTES")[0]: reader.get_tensor(key) for key in keys}


def test_the_object_graph_is_walked_once(walks, tmp_path):
    variable = tf.Variable([1.0, 2.0])
    saves = Saves(tf.train.Checkpoint(it=variable), tmp_path)
    for number in range(3):
        variable.assign([number, number])
        assert saves()["it"].tolist() == [number, number]
    assert len(walks) == 1


def test_what_comes_after_a_look_at_the_counters_is_saved(tmp_path):
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    step = tf.Variable(7, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(step=step, table=table)
    saves = Saves(checkpoint, tmp_path)
    assert saves.capture.counters() == {"step": 7}
    table.insert([1], [10])  # as a restore does, or a step of the training
    assert saves()["table"].tolist() == [1]
    assert saves.capture.counters() == {"step": 7}
    checkpoint.save_counter.assign(3)  # which makes it
    assert saves()["save_counter"] == 3


def test_a_change_is_saved(walks, tmp_path):
    checkpoint = tf.train.Checkpoint(a=tf.Variable(1), items=[tf.Variable(2)])
    saves = Saves(checkpoint, tmp_path)
    assert saves() == {"a": 1, "items/0": 2}
    checkpoint.items.append(tf.Variable(3))
    assert saves() == {"a": 1, "items/0": 2, "items/1": 3}
    checkpoint.a = tf.Variable(4.5)
    assert saves() == {"a": 4.5, "items/0": 2, "items/1": 3}
    assert len(walks) == 3


def test_slot_variables_that_come_with_training_are_saved(walks, tmp_path):
    import keras

    with tf.device("CPU:0"):
        variable = keras.Variable([1.0, 2.0])
    optimizer = keras.optimizers.Adam()
    saves = Saves(tf.train.Checkpoint(optimizer=optimizer, variable=variable), tmp_path)
    before = saves()
    optimizer.apply([tf.constant([1.0, 1.0])], [variable])
    after = saves()
    assert len(after) > len(before)
    optimizer.apply([tf.constant([1.0, 1.0])], [variable])
    saves()
    assert len(walks) == 2


def test_slot_variables_of_old_optimizers_are_saved(tmp_path):
    variable = tf.Variable([1.0, 2.0])
    optimizer = tf.compat.v1.train.AdamOptimizer()
    saves = Saves(tf.train.Checkpoint(optimizer=optimizer, variable=variable), tmp_path)
    before = saves()
    optimizer.apply_gradients([(tf.constant([1.0, 1.0]), variable)])
    assert {k for k in saves() if "OPTIMIZER_SLOT" in k} - before.keys()


def test_values_that_objects_give_themselves_are_asked_for_each_time(walks, tmp_path):
    class State(tf.train.experimental.PythonState):
        text = "one"

        def serialize(self):
            return self.text

        def deserialize(self, text):
            self.text = text

    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    table.insert(tf.constant([1], tf.int64), tf.constant([10], tf.int64))
    generator = tf.random.Generator.from_seed(1)
    iterator = iter(tf.data.Dataset.range(10))
    state = State()
    checkpoint = tf.train.Checkpoint(state=state, generator=generator, iterator=iterator)
    saves = Saves(checkpoint, tmp_path)
    before = saves()
    state.text = "two"
    generator.normal([5])
    next(iterator)
    after = saves()
    assert (before["state"], after["state"]) == (b"one", b"two")
    assert before["generator/_state_var"].tolist() != after["generator/_state_var"].tolist()
    assert len(walks) == 1


def test_a_table_that_grew_is_saved_whole(tmp_path):
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    saves = Saves(tf.train.Checkpoint(table=table), tmp_path)
    for size in (1, 1, 100):
        numbers = tf.range(size, dtype=tf.int64)
        table.insert(numbers, numbers)
        _, plan = saves.capture.take()
        assert {e.shape for e in plan.entries if e.key.startswith("table/")} == {(size,)}


def test_an_object_that_gives_other_tensors_is_walked_again(walks, tmp_path):
    class Odd(tf.train.Checkpoint):
        names = ("one",)

        def _serialize_to_tensors(self):
            return {name: tf.constant(1.0) for name in self.names}

        def _restore_from_tensors(self, tensors):
            raise NotImplementedError

    odd = Odd()
    capture = Capture(tf.train.Checkpoint(odd=odd), workers=1, index=0, split="all")
    for names in (("one",), ("one", "two"), ("a/b",), (), ("one",)):
        odd.names = names
        _, plan = capture.take()
        found = {e.key.split(".ATTRIBUTES/")[1] for e in plan.entries if "odd" in e.key}
        assert found == {name.replace("/", "..S") for name in names}
    assert len(walks) == 5


def test_a_variable_without_a_fixed_shape_is_saved_in_the_shape_it_has(tmp_path):
    variable = tf.Variable(tf.zeros([1, 2]), shape=tf.TensorShape([None, 2]))
    saves = Saves(tf.train.Checkpoint(it=variable), tmp_path)
    for rows in (1, 3, 3, 2):
        variable.assign(tf.fill([rows, 2], float(rows)))
        assert saves()["it"].shape == (rows, 2)


def test_a_variable_that_was_not_initialised_is_saved_once_it_is(tmp_path):
    variable = UninitializedVariable(shape=[2], dtype=tf.float32)
    saves = Saves(tf.train.Checkpoint(it=variable), tmp_path)
    assert "it" not in saves()
    variable.assign([1.0, 2.0])
    assert saves()["it"].tolist() == [1.0, 2.0]


def test_a_variable_that_is_not_what_it_was_is_looked_at_anew(walks, tmp_path, monkeypatch):
    variable = tf.Variable([1.0, 2.0])
    saves = Saves(tf.train.Checkpoint(it=variable), tmp_path)
    saves()
    reads = saves.capture._share.whole
    other = [(batch, found, [(9,)]) for batch, found, _ in reads._batches]
    monkeypatch.setattr(reads, "_batches", other)
    assert saves()["it"].tolist() == [1.0, 2.0]
    assert len(walks) == 2


def test_a_save_after_one_that_failed_has_the_values_of_its_own_moment(tmp_path, monkeypatch):
    variable = tf.Variable([1.0, 2.0])
    saves = Saves(tf.train.Checkpoint(it=variable), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(capture_module, "make_plan", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            saves()
    variable.assign([3.0, 4.0])
    assert saves()["it"].tolist() == [3.0, 4.0]


def test_what_a_variable_of_keras_consists_of_is_found_anew_at_each_save(walks, tmp_path):
    variable = keras.Variable([1.0, 2.0])
    saves = Saves(tf.train.Checkpoint(it=variable), tmp_path)
    assert saves()["it"].tolist() == [1.0, 2.0]
    variable._value = tf.Variable([3.0, 4.0])
    assert saves()["it"].tolist() == [3.0, 4.0]
    assert len(walks) == 1


def test_of_a_divided_variable_only_the_own_rows_are_held():
    variable = tf.Variable(np.arange(4000 * 50, dtype=np.float32).reshape(4000, 50))
    capture = Capture(tf.train.Checkpoint(it=variable), workers=4, index=2, split="all")
    for _ in range(2):
        state, plan = capture.take()
        (piece,) = [p for p in plan.shares[2] if p.entry.key.startswith("it/")]
        held = state._values[piece.identity]
        start, stop = piece.rows
        np.testing.assert_array_equal(held.numpy(), variable.numpy()[start:stop])
        owner = held._numpy()
        whole = variable.read_value()._numpy()
        assert not np.shares_memory(owner, whole)
        variable.assign_add(tf.ones_like(variable))
