"""What is restored directly is restored as TensorFlow restores it."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import wrapt
from tensorflow.experimental import dtensor
from tensorflow.python.ops.resource_variable_ops import ResourceVariable
from tensorflow.python.training.saving import saveable_object

from distckpt.errors import CheckpointDamagedError
from distckpt.state.loading import variable_restore
from distckpt.state.loading.checkpoint_reads import LARGE
from distckpt.state.loading.program_match import match
from distckpt.state.loading.restore import restore

from .conftest import bits

BOTH = [False, True]


def saved(tmp_path, **tracked):
    return tf.train.Checkpoint(**tracked).write(str(tmp_path / "ckpt"))


def targets(checkpoint, path):
    """The keys of what is restored directly."""
    found = variable_restore._targets(match(checkpoint, path))
    return {target.value.key.split("/.ATTRIBUTES")[0] for target in found}


def values(count=6):
    return [
        tf.Variable(tf.random.normal((n + 1, LARGE // 4 if n % 2 else 3))) for n in range(count)
    ]


@pytest.mark.parametrize("verified", BOTH)
def test_small_and_large_variables(tmp_path, verified):
    original, copy = values(), values()
    path = saved(tmp_path, all=original)
    checkpoint = tf.train.Checkpoint(all=copy)
    assert len(targets(checkpoint, path)) == 6
    restore(checkpoint, path, verified=verified)
    assert list(map(bits, copy)) == list(map(bits, original))


def test_variables_of_keras(tmp_path):
    def model(seed):
        keras.utils.set_random_seed(seed)
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        made.compile("adam", "mse")
        made.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
        return made

    original, copy = model(1), model(2)
    path = saved(tmp_path, model=original)
    checkpoint = tf.train.Checkpoint(model=copy)
    assert len(targets(checkpoint, path)) >= 8  # weights, their moments, steps and rate
    restore(checkpoint, path)
    for mine, theirs in zip(copy.variables, original.variables, strict=True):
        assert mine.numpy().tolist() == theirs.numpy().tolist()
    pairs = zip(copy.optimizer.variables, original.optimizer.variables, strict=True)
    assert all(mine.numpy().tolist() == theirs.numpy().tolist() for mine, theirs in pairs)


def test_what_is_unusual_is_left_to_tensorflow(tmp_path):
    def program(value):
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0)
        table.insert("key", value)
        return {
            "plain": tf.Variable(value),
            "unknown": tf.Variable([value], shape=tf.TensorShape(None)),
            "table": table,
        }

    path = saved(tmp_path, **program(1.0))
    tracked = program(3.0)
    checkpoint = tf.train.Checkpoint(**tracked)
    assert targets(checkpoint, path) == {"plain"}
    restore(checkpoint, path)
    assert tracked["plain"].numpy() == tracked["table"].lookup("key").numpy() == 1.0
    assert tracked["unknown"].numpy() == [1.0]


@pytest.mark.parametrize("wrong", [tf.zeros((3,)), tf.zeros((2,), tf.int32)], ids=["shape", "type"])
@pytest.mark.parametrize("verified", BOTH)
def test_what_does_not_fit_is_tensorflows_error(tmp_path, wrong, verified):
    path = saved(tmp_path, fits=tf.Variable([1.0]), wrong=tf.Variable([1.0, 2.0]))

    def attempt(call):
        fits = tf.Variable([0.0])
        checkpoint = tf.train.Checkpoint(fits=fits, wrong=tf.Variable(wrong))
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as raised:
            call(checkpoint)
        restore(tf.train.Checkpoint(fits=fits), path)  # not taken for restored before
        assert fits.numpy().tolist() == [1.0]
        assert "wrong" in str(raised.value) or "shape" in str(raised.value)

    attempt(lambda c: restore(c, path, verified=verified))


@pytest.mark.parametrize("size", [2, LARGE])
def test_damage_changes_nothing_unless_the_files_were_verified(tmp_path, size):
    first, last = (tf.Variable(tf.fill((size,), value)) for value in (1.0, 2.0))
    path = saved(tmp_path, first=first, last=last)
    data = tmp_path / "ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[content.index(np.float32(2.0).tobytes())] ^= 1
    data.write_bytes(content)
    for variable in (first, last):
        variable.assign(tf.zeros((size,)))
    with pytest.raises(CheckpointDamagedError):
        restore(tf.train.Checkpoint(first=first, last=last), path)
    assert first.numpy()[0] == last.numpy()[0] == 0.0
    before = first._update_uid, last._update_uid
    with pytest.raises(CheckpointDamagedError):
        restore(tf.train.Checkpoint(first=first, last=last), path, verified=True)
    assert (first._update_uid, last._update_uid) == before  # not taken for restored


def test_a_damaged_object_graph_is_damage(tmp_path):
    path = saved(tmp_path, a=tf.Variable(1.0))
    data = tmp_path / "ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[content.index(b"VARIABLE_VALUE")] ^= 1
    data.write_bytes(content)
    with pytest.raises(CheckpointDamagedError):
        restore(tf.train.Checkpoint(a=tf.Variable(0.0)), path)


@pytest.mark.parametrize("verified", BOTH)
def test_what_is_made_later_is_restored_then(tmp_path, verified):
    path = saved(tmp_path, now=tf.Variable(1.0), later=tf.Variable(2.0))
    checkpoint = tf.train.Checkpoint(now=tf.Variable(0.0))
    restore(checkpoint, path, verified=verified)
    assert checkpoint.now.numpy() == 1.0
    checkpoint.later = tf.Variable(0.0)
    assert checkpoint.later.numpy() == 2.0


def test_the_last_restore_counts(tmp_path):
    """Also if an object is tracked later under a name for which an earlier one has waited."""
    ones = saved(tmp_path / "1", a=tf.Variable(1.0), b=tf.Variable(1.0))
    twos = saved(tmp_path / "2", a=tf.Variable(2.0))
    for earlier, later in [(restore, restore), (restore, None), (None, restore)]:
        variable = tf.Variable(0.0)
        checkpoint = tf.train.Checkpoint(a=variable)
        for path, ours in ((ones, earlier), (twos, later)):
            if ours:
                ours(checkpoint, path)
            else:
                checkpoint.restore(path)
        assert variable.numpy() == 2.0
        checkpoint.b = variable
        assert variable.numpy() == 2.0


def test_an_object_with_two_names_is_restored_as_by_tensorflow(tmp_path):
    """In the checkpoint two objects have these names."""
    path = saved(tmp_path, a=tf.Variable(1.0), b=tf.Variable(2.0), c=tf.Variable(3.0))

    def restored(call):
        both = tf.Variable(0.0)
        checkpoint = tf.train.Checkpoint(a=both, b=both, c=tf.Variable(0.0))
        call(checkpoint)
        return both.numpy(), checkpoint.c.numpy()

    assert restored(lambda c: restore(c, path)) == restored(lambda c: c.restore(path))


def test_one_object_in_the_checkpoint_for_two_in_the_program(tmp_path):
    both = tf.Variable(1.0)
    path = saved(tmp_path, a=both, b=both)

    def restored(call):
        checkpoint = tf.train.Checkpoint(a=tf.Variable(0.0), b=tf.Variable(0.0))
        call(checkpoint)
        return checkpoint.a.numpy(), checkpoint.b.numpy()

    assert restored(lambda c: restore(c, path)) == restored(lambda c: c.restore(path))


def test_tensorflow_restores_all_if_it_matches_objects_in_another_way(tmp_path, monkeypatch):
    path = saved(tmp_path, a=tf.Variable(1.0), b=tf.Variable(2.0))
    checkpoint = tf.train.Checkpoint(a=tf.Variable(0.0), b=tf.Variable(0.0))
    found = match(checkpoint, path)
    a, b = found.values
    exchanged = (a._replace(thing=b.thing), b._replace(thing=a.thing))
    wrong = dataclasses.replace(found, values=exchanged)
    variable_restore.restore(checkpoint, path, wrong, verified=True)
    assert (checkpoint.a.numpy(), checkpoint.b.numpy()) == (1.0, 2.0)


def test_all_is_consumed(tmp_path, monkeypatch):
    """TensorFlow takes what is restored directly for restored."""
    path = tf.train.Checkpoint(a=tf.Variable(1.0), b=tf.Variable(2.0)).save(tmp_path / "ckpt")
    checkpoint = tf.train.Checkpoint(a=tf.Variable(0.0), b=tf.Variable(0.0))
    status = []
    original = tf.train.Checkpoint.restore
    monkeypatch.setattr(
        tf.train.Checkpoint,
        "restore",
        lambda self, path: status.append(original(self, path)) or status[0],
    )
    restore(checkpoint, path)
    status[0].assert_consumed()
    numbers = {checkpoint.a._update_uid, checkpoint.b._update_uid}
    assert numbers == {status[0]._checkpoint.restore_uid}


def test_values_do_not_share_memory(tmp_path):
    path = saved(tmp_path, a=tf.Variable(tf.ones((LARGE,))))
    copies = [tf.Variable(tf.zeros((LARGE,))) for _ in range(2)]
    for copy in copies:
        restore(tf.train.Checkpoint(a=copy), path)
    copies[0].assign_add(tf.ones((LARGE,)))
    assert [copy.numpy()[0] for copy in copies] == [2.0, 1.0]


@pytest.mark.parametrize("name", ["read", "restore"])
def test_a_subclass_may_use_the_values_after_its_restore(tmp_path, name):
    def doubles(self, path, options=None):
        status = getattr(super(Doubling, self), name)(path, options)
        self.v.assign(2 * self.v)
        return status

    class Doubling(tf.train.Checkpoint):
        pass

    setattr(Doubling, name, doubles)
    path = saved(tmp_path, v=tf.Variable(1.0))
    variable = tf.Variable(0.0)
    restore(Doubling(v=variable), path)
    assert variable.numpy() == 2.0


def test_a_subclass_that_restores_as_usual(tmp_path, monkeypatch):
    class Other(tf.train.Checkpoint):
        pass

    path = saved(tmp_path, v=tf.Variable(1.0))
    found = []
    monkeypatch.setattr(variable_restore, "_assign_all", lambda targets, _: found.extend(targets))
    restore(Other(v=tf.Variable(0.0)), path)
    assert len(found) == 1


class Gathering(ResourceVariable):
    """Is restored with twice the value."""

    def _gather_saveables_for_checkpoint(self):
        return {"VARIABLE_VALUE": lambda name="": Doubled(self, name)}


class Doubled(saveable_object.SaveableObject):
    def __init__(self, variable, name):
        spec = saveable_object.SaveSpec(variable.read_value(), "", name, variable.dtype, "CPU:0")
        super().__init__(variable, [spec], name)

    def restore(self, restored_tensors, restored_shapes):
        return self.op.assign(2 * restored_tensors[0])


class KerasGathering(keras.Variable):
    """Is not restored."""

    def _gather_saveables_for_checkpoint(self):
        return {}


class KerasAssigning(keras.Variable):
    """Is restored with twice the value, if it is mirrored."""

    def assign(self, value):
        return super().assign(2 * value)


def serializing():
    """A variable that is saved under another name: TensorFlow does not find it."""
    variable = tf.Variable([0.0])
    variable._serialize_to_tensors = lambda: {"OTHER": variable.read_value()}
    return variable


def mirrored(make):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        return make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gathering([0.0]),
        lambda: KerasGathering([0.0]),
        lambda: mirrored(lambda: KerasAssigning([0.0])),
        lambda: wrapt.ObjectProxy(tf.Variable([0.0])),
        serializing,
    ],
    ids=["gathering", "of Keras", "assigning", "proxy", "serializing"],
)
def test_a_variable_that_is_restored_in_its_own_way(tmp_path, make):
    path = saved(tmp_path, v=tf.Variable([1.0]))

    def restored(call):
        variable = make()
        try:
            call(tf.train.Checkpoint(v=variable))
        except tf.errors.NotFoundError:
            return "not found"
        return variable.numpy().tolist()

    assert restored(lambda c: restore(c, path)) == restored(lambda c: c.restore(path))


def test_a_variable_of_dtensor(tmp_path):
    mesh = dtensor.create_mesh([("x", 1)], devices=["CPU:0"])
    ones = dtensor.call_with_layout(tf.ones, dtensor.Layout.replicated(mesh, rank=1), shape=(3,))
    original, copy = dtensor.DVariable(ones), dtensor.DVariable(ones * 2.0)
    path = saved(tmp_path, v=original)
    restore(tf.train.Checkpoint(v=copy), path)
    assert dtensor.unpack(copy.read_value())[0].numpy().tolist() == [1.0] * 3


def test_two_objects_with_the_same_variable_are_left_to_tensorflow(tmp_path):
    path = saved(tmp_path, a=tf.Variable(1.0), b=tf.Variable(2.0), c=tf.Variable(3.0))
    whole = keras.Variable(0.0)
    checkpoint = tf.train.Checkpoint(a=whole, b=whole._value, c=tf.Variable(0.0))
    assert targets(checkpoint, path) == {"c"}


def test_the_bytes_of_each_value_are_counted(tmp_path):
    path = saved(tmp_path, small=tf.Variable([1.0, 2.0]), large=tf.Variable(tf.ones((LARGE,))))
    checkpoint = tf.train.Checkpoint(
        small=tf.Variable([0.0, 0.0]), large=tf.Variable(tf.zeros((LARGE,)))
    )
    counted = []
    restore(checkpoint, path, verified=True, count=counted.append)
    assert sorted(counted) == [8, 4 * LARGE]
