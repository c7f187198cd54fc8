"""``checkpoint_interval``: when a save is due, each clause as TensorFlow has it."""

from __future__ import annotations

import errno
import os

import pytest
import tensorflow as tf

from distckpt.errors import SaveFailedError
from distckpt.storage.local import LocalStorage


@pytest.fixture(params=[tf.int64, tf.int32, tf.uint8, tf.float32], ids=lambda d: d.name)
def step(request):
    return tf.Variable(0, dtype=request.param)


@pytest.fixture
def checkpoint(step):
    return tf.train.Checkpoint(step=step)


def test_the_interval_is_told(either, tmp_path, checkpoint, step):
    assert either(checkpoint, tmp_path).checkpoint_interval is None
    manager = either(checkpoint, tmp_path, step_counter=step, checkpoint_interval=5)
    assert manager.checkpoint_interval == 5


def test_a_counter_without_an_interval_holds_nothing_back(either, tmp_path, checkpoint, step):
    manager = either(checkpoint, tmp_path, step_counter=step)
    assert manager.save() is not None
    assert manager.save() is not None


def test_the_first_save_is_always_due(either, tmp_path, checkpoint, step):
    manager = either(checkpoint, tmp_path, step_counter=step, checkpoint_interval=100)
    assert manager.save() == f"{tmp_path}/ckpt-1"


def test_a_save_is_due_when_the_interval_has_passed(either, tmp_path, checkpoint, step):
    manager = either(checkpoint, tmp_path, step_counter=step, checkpoint_interval=3)
    saved = []
    for _ in range(8):
        saved.append(manager.save())
        step.assign_add(1)
    numbers = [path and int(path.rpartition("-")[2]) for path in saved]
    assert numbers == [1, None, None, 2, None, None, 3, None]
    assert int(checkpoint.save_counter) == 3  # what is not saved is not counted


def test_without_the_check_only_the_same_step_is_held_back(either, tmp_path, checkpoint, step):
    manager = either(checkpoint, tmp_path, step_counter=step, checkpoint_interval=100)
    assert manager.save(check_interval=False)
    assert manager.save(check_interval=False) is None
    step.assign_add(1)
    assert manager.save(check_interval=True) is None
    assert manager.save(check_interval=False)
    assert manager.save(9, check_interval=False) is None
    step.assign(0)
    assert manager.save(check_interval=False)  # another step, if an earlier one


def test_the_last_step_can_be_given(either, tmp_path, checkpoint, step):
    options = {"step_counter": step, "checkpoint_interval": 5, "last_checkpoint_step": 2}
    manager = either(checkpoint, tmp_path, **options)
    assert manager.save() is None
    step.assign(2)
    assert manager.save(check_interval=False) is None
    step.assign(6)
    assert manager.save() is None
    step.assign(7)
    assert manager.save()


def test_the_interval_counts_from_the_restored_step(either, tmp_path, checkpoint, step):
    step.assign(4)
    either(checkpoint, tmp_path).save()
    step.assign(0)
    manager = either(checkpoint, tmp_path, step_counter=step, checkpoint_interval=2)
    manager.restore_or_initialize()
    assert int(step) == 4
    assert manager.save(check_interval=False) is None
    step.assign(5)
    assert manager.save() is None
    step.assign(6)
    assert manager.save()


def test_without_a_checkpoint_restoring_changes_no_step(either, tmp_path, checkpoint, step):
    manager = either(checkpoint, tmp_path, step_counter=step, checkpoint_interval=2)
    assert manager.restore_or_initialize() is None
    assert manager.save()


def test_a_keras_counter_serves(either, tmp_path):
    import keras

    counter = keras.Variable(0, dtype="int64", trainable=False)
    checkpoint = tf.train.Checkpoint(counter=counter)
    manager = either(checkpoint, tmp_path, step_counter=counter, checkpoint_interval=2)
    assert manager.save(counter) == f"{tmp_path}/ckpt-0"
    counter.assign(1)
    assert manager.save() is None
    counter.assign(2)
    assert manager.save(counter) == f"{tmp_path}/ckpt-2"


class FullDisk(LocalStorage):
    def rename(self, source, target):
        if os.path.basename(target).endswith(".manifest.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        super().rename(source, target)


def test_a_step_whose_save_failed_can_be_saved_again(make, tmp_path, monkeypatch):
    """TensorFlow takes it for saved, and holds back the second try."""
    step = tf.Variable(0)
    checkpoint = tf.train.Checkpoint(step=step)
    options = {"step_counter": step, "checkpoint_interval": 3}
    with monkeypatch.context() as patch:
        patch.setattr(
            "distckpt.manager.checkpoint_manager.storage_for", lambda directory: FullDisk()
        )
        manager = make(checkpoint, tmp_path / "run", **options)
        with pytest.raises(SaveFailedError):
            manager.save()
        assert manager.latest_checkpoint is None
    monkeypatch.setattr(FullDisk, "rename", LocalStorage.rename)
    assert manager.save() == f"{tmp_path}/run/ckpt-2"


def test_the_step_is_recorded(make, observer, tmp_path):
    step = tf.Variable(70)
    checkpoint = tf.train.Checkpoint(step=step)
    make(checkpoint, tmp_path, step_counter=step).save(3)
    assert observer.verify(tmp_path, "ckpt-3").step == 70
    make(checkpoint, tmp_path).save(4)
    assert observer.verify(tmp_path, "ckpt-4").step == 4


@pytest.mark.parametrize("counter", ["no counter", object(), tf.Variable([1, 2])])
def test_a_counter_that_nobody_needs_may_be_anything(either, tmp_path, counter):
    checkpoint = tf.train.Checkpoint(step=tf.Variable(0))
    assert either(checkpoint, tmp_path, step_counter=counter).save() == f"{tmp_path}/ckpt-1"
