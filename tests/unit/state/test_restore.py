"""Restoring: a damaged file is told from a program that the checkpoint does not fit."""

from __future__ import annotations

import pytest
import tensorflow as tf

from distckpt.errors import CheckpointDamagedError, RestoreError
from distckpt.state.loading.restore import restore


class Pair(tf.__internal__.tracking.AutoTrackable):
    """Serializes itself under the names it is given."""

    def __init__(self, *names):
        self.names = list(names)

    def _serialize_to_tensors(self):
        return {name: tf.constant(1) for name in self.names}

    def _restore_from_tensors(self, tensors):
        return tf.no_op()


@pytest.fixture
def saved(make, tmp_path):
    """A directory with two checkpoints."""
    checkpoint = tf.train.Checkpoint(pair=Pair("one"), value=tf.Variable([1.0, 2.0]))
    manager = make(checkpoint, tmp_path)
    manager.save()
    manager.save()
    return tmp_path


def test_values_are_restored(saved):
    copy = tf.train.Checkpoint(value=tf.Variable([0.0, 0.0]))
    restore(copy, str(saved / "ckpt-2"))
    assert copy.value.numpy().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("ckpt-2.index", "missing"),
        ("ckpt-2.index", "cut off"),
        ("ckpt-2.index", "empty"),
        ("ckpt-2.data-00000-of-00001", "missing"),
        ("ckpt-2.data-00000-of-00001", "cut off"),
        ("ckpt-2.data-00000-of-00001", "empty"),
        ("ckpt-2.data-00000-of-00001", "changed"),
    ],
)
def test_damaged_files_are_to_blame(saved, file, damage):
    path = saved / file
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "changed":
        content[content.index(b"\x00\x00\x80?")] ^= 1  # in the value
        path.write_bytes(content)
    with pytest.raises(CheckpointDamagedError, match="ckpt-2 cannot be restored"):
        restore(tf.train.Checkpoint(value=tf.Variable([0.0, 0.0])), str(saved / "ckpt-2"))


def unfit_programs():
    return {
        "another shape": tf.train.Checkpoint(value=tf.Variable([0.0])),
        "another type": tf.train.Checkpoint(value=tf.Variable([0, 0])),
        "more tensors": tf.train.Checkpoint(pair=Pair("one", "two")),
    }


@pytest.mark.parametrize("name", ["another shape", "another type"])
def test_a_program_that_does_not_fit_is_to_blame(make, saved, name):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        restore(unfit_programs()[name], str(saved / "ckpt-2"))
    with pytest.raises(RestoreError, match="worker 0 could not restore ckpt-2"):
        make(unfit_programs()[name], saved).restore_or_initialize()


@pytest.mark.parametrize(
    "name",
    [
        "another shape",
        "another type",
        "more tensors",
    ],
)
def test_a_program_that_does_not_fit_spoils_no_checkpoint(make, observer, saved, name):
    manager = make(unfit_programs()[name], saved)
    with pytest.raises(RestoreError):
        manager.restore_or_initialize()
    assert manager.checkpoints == [f"{saved}/ckpt-1", f"{saved}/ckpt-2"]
    manager.save(3)
    assert make(tf.train.Checkpoint(), saved).checkpoints == [
        f"{saved}/ckpt-{number}" for number in (1, 2, 3)
    ]
    assert observer.leftovers(saved) == []
