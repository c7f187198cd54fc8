"""Objects that are saved by functions which the program has registered for them."""

from __future__ import annotations

import dataclasses

import pytest
import tensorflow as tf
from tensorflow.python.saved_model import registration

from distckpt.core.protocol import share_parts
from distckpt.errors import SaveFailedError, UnsupportedOptionError

from ..manager.conftest import FAST
from .conftest import bits, program


class Scattered(tf.Module):
    """Is saved by a function of its own."""

    def __init__(self, number):
        super().__init__()
        self.number = number


def save_as_shards(trackables, file_prefix):
    prefixes = []
    for position, name in enumerate(sorted(trackables)):
        prefix = tf.strings.join([file_prefix, f"-part{position}"])
        value = tf.constant([trackables[name].number] * 3)
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=[f"{name}/mine"], shape_and_slices=[""], tensors=[value]
        )
        prefixes.append(prefix)
    return prefixes


def restore_from_shards(trackables, merged_prefix):
    for name, trackable in trackables.items():
        (value,) = tf.raw_ops.RestoreV2(
            prefix=merged_prefix,
            tensor_names=[f"{name}/mine"],
            shape_and_slices=[""],
            dtypes=[tf.int32],
        )
        trackable.number = int(value[0])


class Filed(Scattered):
    """Is saved by a function that writes files in a format of its own."""


def save_as_files(trackables, file_prefix):
    for name, trackable in trackables.items():
        path = tf.strings.join([file_prefix, f".{name.replace('/', '_')}.txt"])
        tf.io.write_file(path, str(trackable.number) * 100)
    return []


def restore_from_files(trackables, merged_prefix):
    for name, trackable in trackables.items():
        path = tf.strings.join([merged_prefix, f"-Distckpt.Filed.{name.replace('/', '_')}.txt"])
        trackable.number = int(tf.io.read_file(path).numpy()[:1])


registration.register_checkpoint_saver(
    "Distckpt",
    "Scattered",
    predicate=lambda trackable: type(trackable) is Scattered,
    save_fn=save_as_shards,
    restore_fn=restore_from_shards,
)
registration.register_checkpoint_saver(
    "Distckpt",
    "Filed",
    predicate=lambda trackable: type(trackable) is Filed,
    save_fn=save_as_files,
    restore_fn=restore_from_files,
)


def test_savers_that_write_shards(round_trips, observer):
    def build(number):
        objects = [Scattered(number), Scattered(5 * number)]
        checkpoint = tf.train.Checkpoint(objects=objects, value=tf.Variable(number))
        return program(checkpoint, lambda: [o.number for o in objects] + [bits(checkpoint.value)])

    paths = round_trips.run(build)
    assert observer.contents(paths["ours"])["objects/0/mine"][1] == [3]


def test_savers_that_write_files(make, observer, tmp_path):
    one = Filed(1)
    checkpoint = tf.train.Checkpoint(one=one, value=tf.Variable(2))
    plain = tf.train.CheckpointManager(checkpoint, tmp_path / "plain", 2).save()
    manager = make(checkpoint, tmp_path / "ours", 2)
    checkpoint.save_counter.assign(0)
    manager.save()
    names = [{p.name for p in (tmp_path / d).glob("*.txt")} for d in ("plain", "ours")]
    assert names[0] == names[1] == {"ckpt-1-Distckpt.Filed.one.txt"}
    assert observer.contents(plain) == observer.contents(f"{tmp_path}/ours/ckpt-1")
    for path in (plain, f"{tmp_path}/ours/ckpt-1"):
        one.number = 0
        checkpoint.restore(path)
        assert one.number == 1
    one.number = 0
    assert make(checkpoint, tmp_path / "plain").restore_or_initialize() == plain
    assert one.number == 1
    for number in (2, 3, 4):  # TensorFlow would never delete these files
        one.number = number
        manager.save(number)
    assert {p.name for p in (tmp_path / "ours").glob("*.txt")} == {
        f"ckpt-{number}-Distckpt.Filed.one.txt" for number in (3, 4)
    }
    assert observer.leftovers(tmp_path / "ours") == []
    one.number = 0
    manager.restore_or_initialize()
    assert one.number == 4


def test_a_saver_that_writes_elsewhere_is_refused(make, observer, tmp_path, monkeypatch):
    def save(trackables, file_prefix):
        path = str(tmp_path / "elsewhere")
        tf.raw_ops.SaveV2(
            prefix=path, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant(1)]
        )
        return [tf.constant(path)]

    monkeypatch.setattr(registration, "get_save_function", lambda name: save)
    manager = make(tf.train.Checkpoint(one=Scattered(1)), tmp_path / "run")
    with pytest.raises(UnsupportedOptionError, match="prefix it was given"):
        manager.save()
    assert observer.leftovers(tmp_path / "run") == []


def test_a_saver_that_returns_something_else_is_refused(make, observer, tmp_path, monkeypatch):
    monkeypatch.setattr(registration, "get_save_function", lambda name: lambda **_: "my text")
    for factory, folder in ((tf.train.CheckpointManager, "plain"), (make, "ours")):
        manager = factory(tf.train.Checkpoint(one=Scattered(1)), tmp_path / folder, 3)
        with pytest.raises((ValueError, SaveFailedError), match="string"):
            manager.save()
    assert observer.leftovers(tmp_path / "ours") == []


def test_a_saver_may_use_a_folder_of_its_own(make, observer, tmp_path, monkeypatch):
    def save(trackables, file_prefix):
        return save_as_shards(trackables, tf.strings.join([file_prefix, "_temp/part"]))

    monkeypatch.setattr(registration, "get_save_function", lambda name: save)
    checkpoint = tf.train.Checkpoint(objects=[Scattered(1), Scattered(2)])
    plain = tf.train.CheckpointManager(checkpoint, tmp_path / "plain", 3).save()
    checkpoint.save_counter.assign(0)
    ours = make(checkpoint, tmp_path / "ours").save()
    assert observer.contents(ours) == observer.contents(plain)
    assert observer.verify(tmp_path / "ours", "ckpt-1") is not None
    assert observer.leftovers(tmp_path / "ours") == []


def test_such_state_is_written_in_one_part_before_save_returns(make, tmp_path, monkeypatch):
    monkeypatch.setattr(share_parts, "LEAST", 1)
    one = Filed(1)
    checkpoint = tf.train.Checkpoint(one=one, values=[tf.Variable([1.0]), tf.Variable([2.0])])
    manager = make(checkpoint, tmp_path, options=dataclasses.replace(FAST, enable_async=True))
    path = manager.save(1)
    assert manager.latest_checkpoint == path
    assert [p.name for p in tmp_path.glob("*.txt")] == ["ckpt-1-Distckpt.Filed.one.txt"]
    assert len(list(tmp_path.glob("ckpt-1.data-*"))) == 1
    one.number = 5
    manager.restore_or_initialize()
    assert one.number == 1
