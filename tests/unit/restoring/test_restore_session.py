"""All workers restore the same checkpoint, or all raise the same error."""

from __future__ import annotations

import errno
import logging
import time

from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.errors import (
    CheckpointDamagedError,
    ConfigurationError,
    DeadlineExceededError,
    DirectoryNotSharedError,
    RestoreError,
    StateMismatchError,
    WorkerLostError,
)
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from ..kit import lab
from .groups import Group, damage


def test_all_take_the_newest(run):
    group = Group(run, run, run).go()
    assert group.ends == ["ckpt-3"] * 3
    assert group.restored == [["ckpt-3"]] * 3
    assert [b.latest for b in group.managed] == ["ckpt-3"] * 3
    assert len({b.active for b in group.managed}) == 1


def test_the_list_stays_as_it_is_until_the_next_save(run):
    """Even if it is longer than `max_to_keep`: a restore deletes nothing."""
    group = Group(run, run)
    group.managed = [
        ManagedCheckpoints(LocalStorage(), str(run), 1, None, durable=True) for _ in range(2)
    ]
    group.managed[0].delete = lambda names, after, listed: frozenset(names)
    group.go()
    assert [len(managed.active) for managed in group.managed] == [3, 3]


def test_restoring_never_writes(run):
    damage(run, "ckpt-3.data-00001-of-00002")
    group = Group(run, run).go()
    assert [s.writes for s in group.storages] == [0, 0]


def test_without_a_checkpoint_all_get_none(tmp_path):
    group = Group(tmp_path / "none", tmp_path / "none").go()
    assert group.ends == [None, None]
    assert group.restored == [[], []]


def test_a_model_that_does_not_fit_is_not_taken_for_damage(run, caplog):
    caplog.set_level(logging.WARNING)

    def restore(worker, name, count):
        if worker == 1:
            raise ValueError("Shapes (3,) and (4,) are incompatible")

    group = Group(run, run, restore=restore).go()
    text = group.raised(RestoreError)
    assert "worker 1 could not restore ckpt-3: Shapes (3,) and (4,)" in text
    assert "do not train with this state" in text
    assert "not usable" not in caplog.text


def test_the_cause_is_chained_where_it_happened(run):
    cause = ValueError("Shapes differ")

    def restore(worker, name, count):
        if worker == 1:
            raise cause

    group = Group(run, run, restore=restore).go()
    assert group.ends[1].__cause__ is cause


def test_a_programs_error_outweighs_damage(run):
    def restore(worker, name, count):
        raise CheckpointDamagedError("bad") if worker == 0 else ValueError("program")

    assert "program" in Group(run, run, restore=restore).go().raised(RestoreError)


def test_different_directories_are_noticed_before_anything_is_restored(run, tmp_path):
    group = Group(run, tmp_path / "tmp-of-worker-1").go()
    text = group.raised(StateMismatchError)
    assert "worker 1 restores from" in text
    assert "Give every worker the same directory" in text
    assert isinstance(group.ends[1], ConfigurationError)
    assert group.restored == [[], []]


class Elsewhere(LocalStorage):
    """A file system without the checkpoints."""

    def exists(self, path):
        return False


def test_a_directory_of_the_same_name_that_is_not_shared(run):
    group = Group(run, run, storages=[LocalStorage(), Elsewhere()]).go()
    text = group.raised(DirectoryNotSharedError)
    assert "worker 1" in text
    assert "ckpt-3.index" in text


def test_a_worker_that_dies_is_named_on_all_others(run):
    def restore(worker, name, count):
        if worker == 2:
            group.job.kill(2, "signal 9")
            raise SystemExit

    group = Group(run, run, run, restore=restore)
    group.go()
    for end in group.ends[:2]:
        assert isinstance(end, WorkerLostError)
        assert "worker 2 died (signal 9)" in str(end)


def test_a_worker_that_never_comes_is_named(run):
    group = Group(run, run, run, absent=(2,), deadline=0.3).go()
    for end in group.ends[:2]:
        assert isinstance(end, DeadlineExceededError)
        assert "worker 2" in str(end)


class Unreadable(LocalStorage):
    def list(self, directory):
        raise PermissionError(errno.EACCES, "Permission denied", directory)


def test_a_chief_that_cannot_read_the_directory_tells_all(run):
    group = Group(run, run, storages=[Unreadable(), LocalStorage()]).go()
    text = group.raised(RestoreError)
    assert text.startswith("worker 0 (")
    assert f"cannot list the checkpoints in {run}" in text
    assert "Permission denied" in text
    assert "then restore again" in text
    assert isinstance(group.ends[0].__cause__, PermissionError)
    assert group.restored == [[], []]


def test_a_failed_restore_leaves_the_lists_as_they_were(run):
    def restore(worker, name, count):
        raise ValueError("program")

    group = Group(run, run, restore=restore).go()
    assert [b.latest for b in group.managed] == ["ckpt-3"] * 2
    assert [len(b.active) for b in group.managed] == [3, 3]


def test_it_is_said_once_that_an_older_checkpoint_was_asked_for_and_how_to_get_it(run, caplog):
    lab.point_to(run, ["ckpt-1", "ckpt-2"])
    caplog.set_level(logging.WARNING)
    group = Group(run, run, run).go()
    assert group.ends == ["ckpt-3"] * 3
    (text,) = [r.getMessage() for r in caplog.records if "names" in r.getMessage()]
    assert text.startswith(f"{run}/checkpoint names ckpt-2 as the newest checkpoint, but ckpt-3 ")
    assert text.endswith(f"run: distckpt rollback {run} ckpt-2")


def test_nothing_is_said_if_a_chief_died_before_it_wrote_that_file(run, caplog):
    storage = FaultyStorage(lab.FastStorage(), [Fault(fails(5), Where("rename", "*/checkpoint"))])
    lab.Chief(run, storage, max_to_keep=9).save("ckpt-4", 4, 2)
    caplog.clear()
    assert Group(run, run).go().ends == ["ckpt-4"] * 2
    assert "names" not in caplog.text


def test_a_worker_that_reads_slowly_gets_more_time(run):
    """Longer than after five seconds without progress, when it would count as stuck."""

    def restore(worker, name, count):
        for _ in range(70 if worker else 0):
            time.sleep(0.1)
            count(1)

    group = Group(run, run, restore=restore, deadline=1.5, slow_factor=20.0).go()
    assert group.ends == ["ckpt-3"] * 2
