"""Background saves of one process: when they count, and which calls save."""

from __future__ import annotations

import dataclasses
import gc
import os
import threading

import pytest
import tensorflow as tf

from distckpt.policies import AtSteps, EverySteps
from distckpt.storage.local import LocalStorage

from .conftest import ASYNC, value


def test_it_returns_its_path_and_counts_once_it_is_committed(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, 2, options=ASYNC)
    manager.save()
    manager.sync()
    gate.open.clear()
    checkpoint.value.assign(2.0)
    assert manager.save() == f"{tmp_path}/ckpt-2"
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1"]
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-1"
    checkpoint.value.assign(3.0)
    gate.open.set()
    manager.sync()
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-2"
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1", f"{tmp_path}/ckpt-2"]
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-2"
    assert value(f"{tmp_path}/ckpt-2") == 2.0


@pytest.mark.parametrize("second", [True, False], ids=["asynchronous", "blocking"])
def test_a_save_waits_for_the_one_in_flight(make, gate, observer, tmp_path, checkpoint, second):
    manager = make(checkpoint, tmp_path, 5)
    gate.open.clear()
    manager.save(options=tf.train.CheckpointOptions(enable_async=True))
    checkpoint.value.assign(2.0)
    threading.Timer(0.3, gate.open.set).start()
    manager.save(options=tf.train.CheckpointOptions(enable_async=second))
    assert f"{tmp_path}/ckpt-1" in manager.checkpoints
    manager.sync()
    assert [value(path) for path in manager.checkpoints] == [1.0, 2.0]
    assert observer.leftovers(tmp_path) == []


def test_restoring_waits_for_the_save_in_flight(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, 5, options=ASYNC)
    gate.open.clear()
    manager.save()
    checkpoint.value.assign(2.0)
    threading.Timer(0.3, gate.open.set).start()
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"
    assert checkpoint.value.numpy() == 1.0


def test_leaving_the_manager_waits(make, gate, tmp_path, checkpoint):
    gate.open.clear()
    with make(checkpoint, tmp_path, options=ASYNC) as manager:
        manager.save()
        threading.Timer(0.3, gate.open.set).start()
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"


def test_leaving_by_an_error_waits_and_raises_that_error(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    with pytest.raises(ZeroDivisionError), manager:
        manager.save() and 1 // 0
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"


def test_many_saves_in_a_row_keep_the_last(make, observer, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, 2, options=ASYNC)
    for number in range(1, 31):
        checkpoint.value.assign(number)
        assert manager.save() == f"{tmp_path}/ckpt-{number}"
    manager.sync()
    assert [value(path) for path in manager.checkpoints] == [29.0, 30.0]
    assert observer.leftovers(tmp_path) == []


@pytest.mark.posix
def test_the_background_leaves_the_cores_to_training(make, tmp_path, checkpoint):
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found = []
    options = tf.train.CheckpointOptions(
        enable_async=True, experimental_write_callbacks=[lambda: found.append(niceness())]
    )
    before = niceness()
    manager = make(checkpoint, tmp_path)
    manager.save(options=options)
    manager.sync()
    assert found == [min(19, before + 10)]
    assert niceness() == before


class Slow(LocalStorage):
    """Holds back renames until `go` is set."""

    def __init__(self):
        self.reached, self.go = threading.Event(), threading.Event()

    def rename(self, source, target):
        self.reached.set()
        assert self.go.wait(60)
        super().rename(source, target)


def test_training_has_its_garbage_collector_while_the_commit_waits(
    make, tmp_path, checkpoint, monkeypatch
):
    storage = Slow()
    monkeypatch.setattr(
        "distckpt.manager.checkpoint_manager.storage_for", lambda directory: storage
    )
    manager = make(checkpoint, tmp_path, options=ASYNC)
    manager.save()
    assert storage.reached.wait(60)
    assert gc.isenabled()
    storage.go.set()
    manager.sync()
    assert gc.isenabled()


def test_a_save_is_skipped_and_counted_while_one_is_in_flight(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=dataclasses.replace(ASYNC, when_busy="skip"))
    gate.open.clear()
    assert manager.save() == f"{tmp_path}/ckpt-1"
    assert manager.save() is None
    assert manager.save() is None
    assert manager.skipped_saves == 2
    gate.open.set()
    manager.sync()
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.skipped_saves == 2


def test_a_policy_decides_which_calls_save(make, tmp_path, checkpoint):
    step = tf.Variable(0)
    options = dataclasses.replace(ASYNC, save_policy=EverySteps(4) | AtSteps([1]))
    manager = make(checkpoint, tmp_path, step_counter=step, options=options)
    saved = []
    for number in range(1, 14):
        step.assign(number)
        if manager.save():
            saved.append(number)
    assert saved == [1, 4, 8, 12]
    assert manager.save() is None
    assert manager.save(check_interval=False) is not None
    manager.sync()
    assert len(manager.checkpoints) == 5


def test_a_restart_goes_on_with_the_policy(make, tmp_path):
    def program():
        step = tf.Variable(0)
        options = dataclasses.replace(ASYNC, save_policy=EverySteps(4))
        manager = make(tf.train.Checkpoint(step=step), tmp_path, step_counter=step, options=options)
        manager.restore_or_initialize()
        return step, manager

    step, manager = program()
    step.assign(6)
    assert manager.save() is not None
    manager.sync()
    step, manager = program()
    assert int(step) == 6
    assert manager.save() is None
    step.assign(8)
    assert manager.save() is not None
    manager.sync()
