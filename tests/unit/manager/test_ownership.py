"""One directory, one job: what a program sees when somebody clears, moves, links or fills it."""

from __future__ import annotations

import logging
import pathlib
import shutil
import threading

import pytest
import tensorflow as tf

from distckpt.errors import DirectoryClearedError, SaveFailedError, SupersededError
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, pauses

CLEARED = r"run was cleared or moved while in use.*save again, which takes the directory again"


def clear(run):
    shutil.rmtree(run)


def remove_private_folder(run):
    shutil.rmtree(run / ".distckpt")


def move_away(run):
    run.rename(run.parent / "old")


def names(paths):
    return [pathlib.Path(path).name for path in paths]


def on_disk(run):
    return sorted(path.stem for path in run.glob("*.index"))


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def new(make, run):
    """Returns a manager of a state with one value, and that value."""

    def new(value=0.0, keep=2, name="ckpt", directory=None):
        variable = tf.Variable(value)
        checkpoint = tf.train.Checkpoint(value=variable)
        return make(checkpoint, directory or run, keep, checkpoint_name=name), variable

    return new


@pytest.mark.parametrize("befall", [clear, remove_private_folder, move_away])
def test_one_save_says_that_the_directory_was_cleared_and_the_next_takes_it(
    new, run, befall, caplog, observer
):
    manager, value = new()
    for _ in range(2):
        manager.save()
    befall(run)
    there = on_disk(run)
    value.assign(7.0)
    with pytest.raises(DirectoryClearedError, match=CLEARED):
        manager.save()
    assert on_disk(run) == there
    assert run.exists() == (befall is remove_private_folder)
    caplog.clear()
    path = manager.save()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "takes it again" in caplog.text
    assert names(manager.checkpoints) == on_disk(run)
    assert path == manager.latest_checkpoint
    manager.save()
    assert names(manager.checkpoints) == on_disk(run) == ["ckpt-4", "ckpt-5"]
    assert observer.pointer(run)["all"] == ["ckpt-4", "ckpt-5"]
    assert observer.leftovers(run) == []
    again, value = new()
    assert names([again.restore_or_initialize()]) == ["ckpt-5"]
    assert float(value) == 7.0


@pytest.mark.parametrize("befall", [clear, remove_private_folder, move_away])
def test_a_new_manager_takes_a_cleared_directory_at_once(new, run, befall, caplog):
    """As in a notebook, or in a loop over settings."""
    for value in (1.0, 2.0, 3.0):
        manager, _ = new(value)
        manager.save()
        manager.save()
        befall(run)
        shutil.rmtree(run.parent / "old", ignore_errors=True)
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    if befall is remove_private_folder:  # the checkpoints are there, and are replaced
        warnings = [r for r in warnings if "This save replaces" not in r.getMessage()]
    assert not warnings


def test_two_managers_go_on_after_one_word_to_the_first(new, run):
    first, second = new()[0], new(name="best", keep=1)[0]
    for manager in (first, second, first, second):
        manager.save()
    clear(run)
    with pytest.raises(DirectoryClearedError):
        first.save()
    for manager in (first, second, first, second):
        manager.save()
    assert names(first.checkpoints) == ["ckpt-4", "ckpt-5"]
    assert names(second.checkpoints) == ["best-4"]
    assert on_disk(run) == ["best-4", "ckpt-4", "ckpt-5"]


def test_no_manager_of_a_process_prunes_what_another_one_of_it_has_saved(new, run):
    first, second = new()[0], new(name="best", keep=1)[0]
    for manager in (first, first, second, second, first, second):
        manager.save()
    assert on_disk(run) == ["best-3", "ckpt-2", "ckpt-3"]
    assert names(first.checkpoints) == ["ckpt-2", "ckpt-3"]


def test_what_has_vanished_is_neither_listed_nor_named_in_tensorflows_file(new, run, observer):
    manager, _ = new(keep=4)
    for _ in range(3):
        manager.save()
    for path in run.glob("ckpt-2.*"):
        path.unlink()
    manager.save()
    assert names(manager.checkpoints) == ["ckpt-1", "ckpt-3", "ckpt-4"]
    assert observer.pointer(run)["all"] == ["ckpt-1", "ckpt-3", "ckpt-4"]


def test_another_job_in_the_place_of_a_cleared_directory_keeps_it(new, run, another_process):
    """Both would take the first number. The old one must neither save nor prune there."""
    old, _ = new(1.0)
    old.save()
    clear(run)
    another_process()
    job, _ = new(2.0, keep=1)
    for _ in range(3):
        job.save()
        with pytest.raises(SupersededError, match="or restored from a backup"):
            old.save()
    assert on_disk(run) == ["ckpt-3"]
    again, value = new()
    again.restore_or_initialize()
    assert float(value) == 2.0


@pytest.fixture
def source(new, tmp_path, another_process):
    """Returns the directory of another job, whose four processes have each saved 50 once."""
    for _ in range(4):
        another_process()
        manager, _ = new(50.0, directory=tmp_path / "source")
        manager.restore_or_initialize()
        manager.save()
    another_process()
    return tmp_path / "source"


def test_what_is_saved_after_a_copy_came_in_is_newer_than_that(new, run, source, another_process):
    """However often the job was restarted from which it was copied."""
    manager, value = new(1.0)
    manager.save()
    another_process()
    for path in source.glob("ckpt-4*"):
        shutil.copy(path, run)
    manager, value = new(keep=5)
    assert names([manager.restore_or_initialize()]) == ["ckpt-4"]
    assert float(value) == 50.0
    for _ in range(2):
        value.assign_add(1.0)
        manager.save()
    another_process()
    manager, value = new()
    assert names([manager.restore_or_initialize()]) == ["ckpt-6"]
    assert float(value) == 52.0


def test_a_copy_that_comes_in_under_a_job_is_older_than_what_that_saves(
    new, run, source, another_process
):
    manager, value = new(1.0)
    manager.save()
    for path in source.glob("ckpt-4*"):
        shutil.copy(path, run)
    value.assign(2.0)
    manager.save()
    assert names(manager.checkpoints) == ["ckpt-4", "ckpt-2"]
    another_process()
    manager, value = new()
    assert names([manager.restore_or_initialize()]) == ["ckpt-2"]
    assert float(value) == 2.0


def test_a_link_to_the_directory_is_the_directory(new, run, tmp_path):
    run.mkdir()
    (tmp_path / "link").symlink_to(run)
    managers = [
        new(directory=where, name=name, keep=1)[0]
        for where, name in ((run, "ckpt"), (tmp_path / "link", "best"))
    ]
    for manager in managers * 3:
        manager.save()
    assert on_disk(run) == ["best-3", "ckpt-3"]


def test_an_asynchronous_save_does_not_end_in_another_directory(new, run, monkeypatch):
    """Not even if a manager of the same process has taken that: it saves the same names."""
    reached, go_on = threading.Event(), threading.Event()
    fault = Fault(pauses(reached, go_on), Where("write", "*/manifest.json"))
    storage = FaultyStorage(LocalStorage(), [fault])
    with monkeypatch.context() as patch:
        patch.setattr("distckpt.manager.checkpoint_manager.storage_for", lambda directory: storage)
        manager, _ = new(1.0)
    manager.save(options=tf.train.CheckpointOptions(enable_async=True))
    assert reached.wait(30.0)
    clear(run)
    other, _ = new(2.0)
    other.save()
    go_on.set()
    with pytest.raises(SaveFailedError, match="Another manager of this process"):
        manager.sync()
    assert on_disk(run) == ["ckpt-1"]
    again, value = new()
    again.restore_or_initialize()
    assert float(value) == 2.0
    assert names([manager.save()]) == ["ckpt-2"]


# --- Restored, and not saved yet


def test_a_job_held_up_before_its_first_save_does_not_come_back_over_a_newer_one(
    new, run, another_process, observer
):
    first, _ = new(1.0)
    first.save()
    another_process()
    old, old_value = new()
    assert names([old.restore_or_initialize()]) == ["ckpt-1"]
    another_process()
    job, value = new()
    job.restore_or_initialize()
    for number in range(2, 6):
        value.assign(float(number))
        job.save()
    for _ in range(3):
        with pytest.raises(SupersededError, match="since this job restored from it at"):
            old.save()
    assert on_disk(run) == ["ckpt-4", "ckpt-5"]
    assert observer.leftovers(run) == []
    value.assign(6.0)
    assert names([job.save()]) == ["ckpt-6"]
    assert names([old.restore_or_initialize()]) == ["ckpt-6"]  # as a new start of it would
    assert float(old_value) == 6.0


def test_a_job_that_has_found_nothing_to_restore_leaves_what_has_come_since(
    new, run, another_process
):
    old, _ = new(1.0)
    assert old.restore_or_initialize() is None
    another_process()
    job, _ = new(2.0)
    assert job.restore_or_initialize() is None
    job.save()
    with pytest.raises(SupersededError, match="since this job restored from it at"):
        old.save()
    job.save()
    assert on_disk(run) == ["ckpt-1", "ckpt-2"]


def test_the_next_start_goes_on_though_the_last_job_has_not_said_that_it_ended(
    new, run, another_process
):
    for number in (1, 2, 3):
        another_process()
        manager, _ = new()
        manager.restore_or_initialize()
        assert names([manager.save()]) == [f"ckpt-{number}"]


def test_managers_that_all_restore_save_side_by_side(new, run, another_process):
    for manager in (new()[0], new(name="best", keep=1)[0]):
        manager.save()
    another_process()
    first, second = new()[0], new(name="best", keep=1)[0]
    for manager in (first, second):
        manager.restore_or_initialize()
    for manager in (second, first, second, first):
        manager.save()
    first.restore_or_initialize()
    assert first.save() == first.latest_checkpoint
