"""How checkpoints are numbered and named, and which are kept: each as TensorFlow does it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf

import distckpt
from distckpt import errors

HOUR = 3600.0


def small_checkpoint():
    return tf.train.Checkpoint(value=tf.Variable([1.0, 2.0]))


def names(paths):
    return [os.path.basename(path) for path in paths]


def indexes(directory):
    return sorted(f[: -len(".index")] for f in os.listdir(directory) if f.endswith(".index"))


# --- Numbers


@pytest.mark.parametrize(
    "number",
    [2**63, np.uint64(2**63), -(2**63), 10**5000],
    ids=["2**63", "uint64", "negative", "huge"],
)
def test_a_number_of_more_than_64_bits_is_refused(tmp_path, number):
    manager = distckpt.CheckpointManager(small_checkpoint(), tmp_path, 1)
    with pytest.raises(errors.ConfigurationError, match=r"signed 64-bit integer, but has \d+ bits"):
        manager.save(checkpoint_number=number)
    assert manager.save(checkpoint_number=3) == str(tmp_path / "ckpt-3")


@pytest.mark.parametrize(
    "number",
    [
        7,
        np.int8(7),
        np.uint64(7),
        tf.Variable(7, dtype=tf.int64),
        tf.Variable(7, dtype=tf.int32),
        tf.Variable(7, dtype=tf.uint8),
        tf.constant(7, tf.int16),
        tf.constant(7, tf.uint64),
    ],
    ids=lambda number: f"{type(number).__name__}-{getattr(number, 'dtype', '')}",
)
def test_any_integer_numbers_a_checkpoint(either, tmp_path, number):
    manager = either(small_checkpoint(), tmp_path)
    assert manager.save(number) == f"{tmp_path}/ckpt-7"
    assert manager.save(checkpoint_number=number) == f"{tmp_path}/ckpt-7"
    assert int(number) == 7
    assert int(manager.checkpoint.save_counter) == 2


@pytest.mark.parametrize("number", [0, -3, True, 10**17, 2**63 - 1])
def test_unusual_numbers_serve_as_well(either, tmp_path, number):
    checkpoint = small_checkpoint()
    manager = either(checkpoint, tmp_path, 1)
    manager.save(number)
    assert manager.save(number) == manager.latest_checkpoint == f"{tmp_path}/ckpt-{int(number)}"
    checkpoint.value.assign([0.0, 0.0])
    assert either(checkpoint, tmp_path, 1).restore_or_initialize() == manager.latest_checkpoint
    assert checkpoint.value.numpy().tolist() == [1.0, 2.0]
    assert manager.save(5) == f"{tmp_path}/ckpt-5"
    assert indexes(tmp_path) == ["ckpt-5"]


@pytest.mark.parametrize("number", [1.5, "3", tf.constant([1, 2]), [1]])
def test_what_is_no_integer_is_refused_and_nothing_is_left(either, tmp_path, number):
    manager = either(small_checkpoint(), tmp_path / "run")
    with pytest.raises((TypeError, AttributeError)):
        manager.save(number)
    assert not (tmp_path / "run").exists()
    assert int(manager.checkpoint.save_counter) == 1  # in any case
    assert manager.save() == f"{tmp_path}/run/ckpt-2"


@pytest.mark.parametrize("number", [tf.constant(1.5), tf.Variable(1.5), tf.constant("1")])
def test_a_number_that_would_be_rounded_is_refused(make, tmp_path, number):
    """TensorFlow takes 1.5 for 1, in spite of what it documents."""
    manager = make(small_checkpoint(), tmp_path)
    with pytest.raises(TypeError, match="numbered by an integer"):
        manager.save(number)


def test_the_counter_counts_and_continues_after_a_restore(either, tmp_path):
    manager = either(small_checkpoint(), tmp_path)
    assert names([manager.save(), manager.save(9), manager.save()]) == [
        "ckpt-1",
        "ckpt-9",
        "ckpt-3",
    ]
    successor = either(small_checkpoint(), tmp_path)
    assert successor.restore_or_initialize() == f"{tmp_path}/ckpt-3"
    assert int(successor.checkpoint.save_counter) == 3
    assert names([successor.save()]) == ["ckpt-4"]


def test_a_counter_restored_before_it_exists_is_used(either, tmp_path):
    first = either(small_checkpoint(), tmp_path)
    for _ in range(3):
        first.save()
    checkpoint = tf.train.Checkpoint()
    second = either(checkpoint, tmp_path)
    second.restore_or_initialize()
    assert names([second.save()]) == ["ckpt-4"]


def test_the_counter_of_a_root_is_used(either, tmp_path):
    module = tf.Module()
    module.value = tf.Variable(1.0)
    manager = either(tf.train.Checkpoint(module), tmp_path)
    assert names([manager.save(), manager.save()]) == ["ckpt-1", "ckpt-2"]
    assert (
        int(
            tf.train.load_checkpoint(str(tmp_path)).get_tensor(
                "save_counter/.ATTRIBUTES/VARIABLE_VALUE"
            )
        )
        == 2
    )


def test_the_counter_in_the_checkpoint_is_the_number(either, tmp_path):
    path = either(small_checkpoint(), tmp_path).save()
    key = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"
    assert tf.train.load_checkpoint(path).get_tensor(key) == 1


# --- Order


def test_the_same_number_again_becomes_the_newest(either, tmp_path):
    manager = either(small_checkpoint(), tmp_path, 3)
    for number in (1, 2, 1):
        manager.save(number)
    assert names(manager.checkpoints) == ["ckpt-2", "ckpt-1"]
    assert names([manager.latest_checkpoint]) == ["ckpt-1"]


def test_newest_is_the_last_saved_and_not_the_highest(either, tmp_path):
    manager = either(small_checkpoint(), tmp_path, 2)
    for number in (30, 20, 10):
        manager.save(number)
    assert names(either(small_checkpoint(), tmp_path, 2).checkpoints) == ["ckpt-20", "ckpt-10"]
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-10"
    assert indexes(tmp_path) == ["ckpt-10", "ckpt-20"]


# --- Time


def test_the_first_hour_counts_from_the_construction(either, tmp_path, clock):
    manager = either(small_checkpoint(), tmp_path, 1, keep_checkpoint_every_n_hours=1)
    clock.now += HOUR
    manager.save()
    clock.now += 60
    manager.save()
    assert indexes(tmp_path) == ["ckpt-1", "ckpt-2"]
    assert names(manager.checkpoints) == ["ckpt-2"]


def test_what_is_kept_every_so_many_hours_stays_for_good(either, tmp_path, clock):
    manager = either(small_checkpoint(), tmp_path, 1, keep_checkpoint_every_n_hours=2)
    for _ in range(6):
        clock.now += HOUR
        manager.save()
    manager = either(small_checkpoint(), tmp_path, 1)
    clock.now += HOUR
    manager.save(7)
    assert indexes(tmp_path) == ["ckpt-2", "ckpt-4", "ckpt-7"]
    assert names(manager.checkpoints) == ["ckpt-7"]


def test_a_clock_that_was_set_back_makes_nothing_new_look_old(either, tmp_path, clock):
    manager = either(small_checkpoint(), tmp_path, 3)
    for _ in range(3):
        clock.now += HOUR
        manager.save()
    clock.now -= 10 * HOUR
    manager = either(small_checkpoint(), tmp_path, 3)
    manager.save(4)
    assert (
        names([tf.train.latest_checkpoint(tmp_path), manager.latest_checkpoint]) == ["ckpt-4"] * 2
    )


# --- Directories of plain TensorFlow


def test_checkpoint_save_names_the_newest_whatever_was_committed_before(either, tmp_path):
    checkpoint = small_checkpoint()
    manager = either(checkpoint, tmp_path, 5)
    manager.save(8)
    manager.save(9)
    checkpoint.value.assign([5.0, 5.0])
    path = checkpoint.save(str(tmp_path / "ckpt"))
    checkpoint.value.assign([0.0, 0.0])
    successor = either(checkpoint, tmp_path, 5)
    assert successor.latest_checkpoint == path == f"{tmp_path}/ckpt-3"
    assert successor.checkpoints == []
    assert successor.restore_or_initialize() == path
    assert checkpoint.value.numpy().tolist() == [5.0, 5.0]


@pytest.mark.parametrize("back", [5, 1], ids=["forgotten by TensorFlow", "listed by TensorFlow"])
def test_what_plain_tensorflow_saved_is_the_newest_though_the_clock_was_set_back(
    make, tmp_path, clock, back
):
    checkpoint = small_checkpoint()
    manager = make(checkpoint, tmp_path)
    clock.now += 2 * HOUR
    manager.save()
    manager.save()
    clock.now -= back * HOUR
    plain = tf.train.CheckpointManager(checkpoint, tmp_path, 5)
    assert len(plain.checkpoints) == (2 if back < 2 else 0)
    plain.save()
    assert names([make(checkpoint, tmp_path).latest_checkpoint]) == ["ckpt-3"]


@pytest.mark.parametrize("written", ["./ckpt-2", "{}/ckpt-2", "ckpt-2"])
def test_the_newest_may_be_named_in_several_ways(make, tmp_path, written):
    checkpoint = small_checkpoint()
    plain = tf.train.CheckpointManager(checkpoint, tmp_path, 5)
    plain.save()
    plain.save()
    text = f'model_checkpoint_path: "{written.format(tmp_path)}"'
    (tmp_path / "checkpoint").write_text(text)
    assert make(checkpoint, tmp_path).restore_or_initialize() == f"{tmp_path}/ckpt-2"


@pytest.mark.parametrize("name", ["/elsewhere/ckpt-1", "sub/ckpt-1", "../ckpt-1", "ckpt-1"])
def test_a_newest_checkpoint_that_is_not_there_is_no_reason_to_begin_anew(make, tmp_path, name):
    """TensorFlow would restore it from where it is, or fail."""
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{name}"')
    manager = make(small_checkpoint(), tmp_path, init_fn=lambda: pytest.fail("was called"))
    assert manager.latest_checkpoint is None
    with pytest.raises(errors.RestoreError, match=r"no ckpt-1\.index in its directory"):
        manager.restore_or_initialize()
    assert manager.save() == f"{tmp_path}/ckpt-1"
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"


def test_a_newest_checkpoint_that_is_not_there_is_told_of(make, tmp_path, caplog):
    checkpoint = small_checkpoint()
    manager = tf.train.CheckpointManager(checkpoint, tmp_path, 5)
    manager.save()
    manager.save()
    (tmp_path / "ckpt-2.index").unlink()
    assert make(checkpoint, tmp_path).restore_or_initialize() == f"{tmp_path}/ckpt-1"
    assert "names ckpt-2, but there is no ckpt-2.index" in caplog.text


def test_a_number_that_plain_tensorflow_saved_again_is_restored(either, tmp_path):
    checkpoint = small_checkpoint()
    either(checkpoint, tmp_path, 5).save(1)
    manager = either(checkpoint, tmp_path, 5)
    manager.save(2)
    checkpoint.value.assign([5.0, 5.0])
    tf.train.CheckpointManager(checkpoint, tmp_path, 5).save(2)
    checkpoint.value.assign([0.0, 0.0])
    assert either(checkpoint, tmp_path, 5).restore_or_initialize() == f"{tmp_path}/ckpt-2"
    assert checkpoint.value.numpy().tolist() == [5.0, 5.0]


def test_a_number_that_plain_tensorflow_saved_again_is_pruned(make, tmp_path):
    checkpoint = small_checkpoint()
    make(checkpoint, tmp_path, 5).save(1)
    tf.train.CheckpointManager(checkpoint, tmp_path, 5).save(1)
    make(checkpoint, tmp_path, 1).save(2)
    assert indexes(tmp_path) == ["ckpt-2"]


def test_a_checkpoint_file_with_full_paths_is_understood(either, tmp_path):
    checkpoint = small_checkpoint()
    manager = either(checkpoint, tmp_path, 3)
    manager.save()
    manager.save()
    state = tf.train.get_checkpoint_state(tmp_path)  # full paths, as compat.v1.train.Saver writes
    (tmp_path / "checkpoint").write_text(str(state))
    successor = either(checkpoint, tmp_path, 3)
    assert successor.checkpoints == manager.checkpoints
    assert successor.latest_checkpoint == manager.latest_checkpoint


# --- Names


@pytest.mark.parametrize(
    "name", ["model.best", "my model", "модель", "ckpt-1", "a=b,c", "-", "x.index"]
)
def test_plain_names_serve(either, tmp_path, name):
    checkpoint = small_checkpoint()
    manager = either(checkpoint, tmp_path, 2, checkpoint_name=name)
    for _ in range(3):
        manager.save()
    manager.save(2)
    assert names(manager.checkpoints) == [f"{name}-3", f"{name}-2"]
    successor = either(small_checkpoint(), tmp_path, 1, checkpoint_name=name)
    assert names(successor.checkpoints) == [f"{name}-3", f"{name}-2"]
    assert successor.restore_or_initialize() == f"{tmp_path}/{name}-2"
    assert indexes(tmp_path) == [f"{name}-2", f"{name}-3"]


@pytest.mark.parametrize("name", ["ckpt*", "ckpt?", "[ckpt", "{a,b}"])
def test_names_like_patterns_touch_nothing_else(make, tmp_path, name):
    """TensorFlow deletes by pattern: its "ckpt*-1" would delete "ckpt-x-1" and "ckpt-1", too."""
    checkpoint = small_checkpoint()
    for other in ("ckpt", "ckptx", "c", "a"):
        checkpoint.write(str(tmp_path / f"{other}-1"))
    before = indexes(tmp_path)
    manager = make(checkpoint, tmp_path, 1, checkpoint_name=name)
    for _ in range(3):
        manager.save()
    assert indexes(tmp_path) == sorted([*before, f"{name}-3"])
    checkpoint.value.assign([0.0, 0.0])
    assert make(checkpoint, tmp_path).restore_or_initialize() == f"{tmp_path}/{name}-3"
    assert checkpoint.value.numpy().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "sub/ckpt", "/tmp/ckpt", "a\\b", "a\nb", "a\0b", 5]
)
def test_other_names_are_refused(make, tmp_path, name):
    with pytest.raises(errors.ConfigurationError, match="checkpoint_name="):
        make(small_checkpoint(), tmp_path, checkpoint_name=name)
    with pytest.raises(ValueError, match="plain file name"):
        make(small_checkpoint(), tmp_path, checkpoint_name=name)


@pytest.mark.parametrize(
    ("folder", "name"), [("run[1]", "ckpt"), ("run", "c[k]"), ("a\\b", "ckpt")]
)
def test_what_tensorflow_cannot_restore_is_not_saved(make, tmp_path, folder, name):
    checkpoint = small_checkpoint()
    path = checkpoint.write(str(tmp_path / folder / name))
    with pytest.raises(tf.errors.NotFoundError):
        checkpoint.restore(path)
    with pytest.raises(errors.ConfigurationError, match="never restored"):
        make(checkpoint, tmp_path / folder, checkpoint_name=name)


def test_two_managers_of_different_names_share_a_directory(either, tmp_path):
    checkpoint = small_checkpoint()
    last = either(checkpoint, tmp_path, 2)
    best = either(checkpoint, tmp_path, 1, checkpoint_name="best")
    for number in range(1, 5):
        last.save(number)
        if number % 2:
            best.save(number)
    assert names(last.checkpoints) == ["ckpt-3", "ckpt-4"]
    assert names(best.checkpoints) == ["best-3"]
    assert indexes(tmp_path) == ["best-3", "ckpt-3", "ckpt-4"]


def test_our_manager_is_one_of_tensorflow(make, tmp_path):
    manager = make(small_checkpoint(), tmp_path)
    assert isinstance(manager, tf.train.CheckpointManager)
    assert isinstance(manager, distckpt.CheckpointManager)
    public = [n for n in dir(tf.train.CheckpointManager) if not n.startswith("_")]
    assert set(public) <= set(dir(manager))
