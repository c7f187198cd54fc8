"""A relative directory means what it meant when the manager was made, wherever the program goes."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf

import distckpt
from distckpt.coordination.shared_directory import SharedDirectory
from distckpt.events import ShardWritten
from distckpt.listeners import TensorBoard

from .conftest import FAST


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Returns two folders; the program is in the first."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here", tmp_path / "there"


def state(value):
    return tf.train.Checkpoint(value=tf.Variable(value))


def save_elsewhere(place, value):
    """Another run saves to a directory of the same relative path, below `place`."""
    distckpt.CheckpointManager(state(value), place / "run", 3, options=FAST).save()


def test_it_restores_what_it_has_verified_and_not_another_runs(make, places):
    here, there = places
    make(state(1.0), "run", 3).save()
    save_elsewhere(there, 99.0)
    target = state(0.0)
    manager = make(target, "run", 3)
    os.chdir(there)
    assert manager.restore_or_initialize() == f"{here}/run/ckpt-1"
    assert float(target.value) == 1.0


def test_a_good_checkpoint_is_not_taken_for_damaged(make, places):
    here, there = places
    make(state(1.0), "run", 3).save()
    target = state(0.0)
    manager = make(target, "run", 3)
    os.chdir(there)
    assert manager.restore_or_initialize() == f"{here}/run/ckpt-1"
    assert manager.save() == f"{here}/run/ckpt-2"
    assert not (here / "run/.distckpt/quarantine").exists()


def test_what_only_one_worker_has_comes_from_there_too(make, places):
    _, there = places
    make(state(1.0), "run", 3, worker_checkpoint=state(2.0)).save()
    target, own = state(0.0), state(0.0)
    manager = make(target, "run", 3, worker_checkpoint=own)
    os.chdir(there)
    manager.restore_or_initialize()
    assert (float(target.value), float(own.value)) == (1.0, 2.0)


@pytest.mark.parametrize("given", ["run", "./run"])
def test_paths_have_the_given_form_as_long_as_it_leads_there(make, places, given):
    here, there = places
    manager = make(state(1.0), given, 3)
    assert manager.save() == manager.latest_checkpoint == f"{given}/ckpt-1"
    assert manager.directory == given
    os.chdir(there)
    assert manager.save() == manager.latest_checkpoint == f"{here}/run/ckpt-2"
    assert manager.checkpoints == [f"{here}/run/ckpt-1", f"{here}/run/ckpt-2"]
    assert manager.directory == f"{here}/run"
    os.chdir(here)
    assert manager.checkpoints == [f"{given}/ckpt-1", f"{given}/ckpt-2"]


def test_a_relative_path_that_still_leads_there_stays(make, places):
    manager = make(state(1.0), "../here/run", 3)
    os.chdir(places[1])
    assert manager.save() == "../here/run/ckpt-1"


def test_a_working_directory_that_is_gone_is_no_obstacle(make, places, tmp_path):
    here, _ = places
    manager = make(state(1.0), "run", 3)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        assert manager.save() == f"{here}/run/ckpt-1"
        assert manager.restore_or_initialize() == f"{here}/run/ckpt-1"
    finally:
        os.chdir(here)


def test_a_write_callback_is_told_where_it_is_when_it_is_called(make, places):
    here, there = places
    heard = []
    options = tf.train.CheckpointOptions(
        experimental_write_callbacks=[lambda path: heard.append((os.getcwd(), path))]
    )
    with make(state(1.0), "run", 3) as manager:
        manager.save(options=options)
        os.chdir(there)
        manager.save(options=options)
    assert heard == [(str(here), "run/ckpt-1"), (str(there), f"{here}/run/ckpt-2")]


# --- Others that remember a path


def test_workers_go_on_to_meet_in_their_directory(places):
    here, there = places
    board = SharedDirectory("meeting", "job", 0, 1)
    os.chdir(there)
    board.publish("key", "value")
    assert board.fetch(["key"], 1.0) == ("key", "value")
    assert list(there.iterdir()) == []
    assert (here / "meeting/job").is_dir()


def test_tensorboard_finds_the_scalars_where_it_was_told(places):
    here, there = places
    board = TensorBoard("logs")
    os.chdir(there)
    written = {"bytes": 1, "seconds": 1.0, "write_seconds": 1.0, "flush_seconds": 0.0}
    board(ShardWritten(time=1.0, worker=0, workers=1, directory="d", name="ckpt-1", **written))
    assert list(there.iterdir()) == []
    assert (here / "logs/worker-0").is_dir()
