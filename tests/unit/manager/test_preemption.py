"""`handle_preemption`: bad input, and what it does to a process of its own."""

from __future__ import annotations

import json
import signal
import threading

import pytest
import tensorflow as tf

import distckpt
from distckpt import errors
from distckpt.coordination.in_process import InProcessJob
from distckpt.core import manifest_checksum
from distckpt.runtime import time_limit

from ..kit.eventually import eventually
from ..state.conftest import together


@pytest.fixture
def manager(tmp_path):
    state = tf.train.Checkpoint(value=tf.Variable(1.0))
    return distckpt.CheckpointManager(state, tmp_path, 2)


@pytest.fixture(autouse=True)
def same_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_plain_manager_is_refused(tmp_path):
    plain = tf.train.CheckpointManager(tf.train.Checkpoint(), str(tmp_path), 1)
    with pytest.raises(errors.ConfigurationError, match=r"must be a distckpt\.CheckpointManager"):
        distckpt.handle_preemption(plain)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), "soon", True])
def test_a_grace_that_makes_no_sense(manager, seconds):
    with pytest.raises(errors.ConfigurationError, match="grace_seconds must be a positive"):
        distckpt.handle_preemption(manager, grace_seconds=seconds)


def test_a_variable_that_makes_no_sense(manager, monkeypatch):
    monkeypatch.setenv("DISTCKPT_GRACE_SECONDS", "30s")
    with pytest.raises(errors.ConfigurationError, match="DISTCKPT_GRACE_SECONDS must be"):
        distckpt.handle_preemption(manager)


def test_parameter_servers_are_refused(manager, monkeypatch):
    cluster = {"cluster": {"chief": ["a:1"], "ps": ["b:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(errors.UnsupportedOptionError, match="parameter servers"):
        distckpt.handle_preemption(manager)


def test_workers_without_a_cluster_are_refused(tmp_path):
    member = InProcessJob(2).coordinator(0)
    state = tf.train.Checkpoint(value=tf.Variable(1.0))
    manager = distckpt.CheckpointManager(state, tmp_path, 2, coordinator=member)
    with pytest.raises(errors.UnsupportedOptionError, match="use MultiWorkerMirroredStrategy"):
        distckpt.handle_preemption(manager)


def test_sigterm_is_listened_for_in_the_main_thread_only(manager):
    found = []

    def set_up():
        with pytest.raises(errors.ConfigurationError, match="Call it there, or give it a term"):
            distckpt.handle_preemption(manager)
        found.append(distckpt.handle_preemption(manager, termination_watcher=lambda: False))

    thread = threading.Thread(target=set_up)
    thread.start()
    thread.join()
    assert len(found) == 1
    found[0]._stop_poll_termination_signal_thread()


def test_the_keys_of_old_questions_are_forgotten(tmp_path):
    job = InProcessJob(3)
    managers = [
        distckpt.CheckpointManager(
            tf.train.Checkpoint(), tmp_path, 2, coordinator=job.coordinator(worker)
        )
        for worker in range(3)
    ]
    for left in (None, 100.0, 0.0):
        answers = together([lambda m=m, left=left: m.has_time_to_save(left) for m in managers])
        assert answers == [left != 0.0] * 3
    look = job.coordinator(1)
    for word in ("ready-1", "ready-2", "outcome"):
        assert look.fetch([f"manager-0/grace-{n}/{word}" for n in (0, 1)], 0) is None
        assert look.fetch([f"manager-0/grace-2/{word}"], 0) is not None


def test_it_restores_and_goes_without_the_handler_too(manager, tmp_path):
    handler = distckpt.handle_preemption(manager)
    assert isinstance(handler, tf.distribute.experimental.PreemptionCheckpointHandler)
    assert manager.latest_checkpoint is None
    manager.checkpoint.value.assign(7.0)
    path = manager.save()
    state = tf.train.Checkpoint(value=tf.Variable(1.0))
    again = distckpt.CheckpointManager(state, tmp_path, 2)
    assert again.restore_or_initialize() == path
    assert state.value.numpy() == 7.0
    state.value.assign(9.0)
    path = again.save()  # without the handler's count
    state = tf.train.Checkpoint(value=tf.Variable(1.0))
    manager = distckpt.CheckpointManager(state, tmp_path, 2)
    distckpt.handle_preemption(manager)
    assert manager.latest_checkpoint == path
    assert state.value.numpy() == 9.0


def end_of(handler):
    signal.raise_signal(signal.SIGTERM)
    handler.save_checkpoint_if_preempted()  # agrees on the next step
    with pytest.raises(SystemExit) as end:
        handler.save_checkpoint_if_preempted()
    keeper = time_limit._keeper
    eventually(
        lambda: not keeper.limits and keeper.orders.empty(), "something ends this process later"
    )
    return end.value.code


def test_a_step_that_the_interval_would_skip_is_saved(tmp_path):
    step = tf.Variable(0, dtype=tf.int64)
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(step=step), tmp_path, 2, step_counter=step, checkpoint_interval=100
    )
    handler = distckpt.handle_preemption(manager)
    step.assign(1)
    assert manager.save() is not None
    step.assign(2)
    assert manager.save() is None
    assert end_of(handler) == 75
    assert tf.train.load_variable(manager.latest_checkpoint, "step/.ATTRIBUTES/VARIABLE_VALUE") == 2


def test_saves_that_took_too_long_are_not_tried(manager, caplog):
    handler = distckpt.handle_preemption(manager, grace_seconds=50.0)
    manager.save()
    path = manager.latest_checkpoint + ".manifest.json"
    with open(path) as file:
        manifest = json.load(file)
    del manifest["checksum"]
    with open(path, "wb") as file:
        file.write(manifest_checksum.add(json.dumps({**manifest, "seconds": 40.0}).encode()))
    assert end_of(handler) == 76
    assert "There is no time left to save" in caplog.text
    assert f"resumes from {manager.latest_checkpoint}" in caplog.text
    assert manager.checkpoints == [manager.latest_checkpoint]
