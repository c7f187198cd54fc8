"""Damage that one worker finds makes all workers restore an older checkpoint."""

from __future__ import annotations

import errno
import json

import pytest

from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.errors import CheckpointDamagedError, RestoreError
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from ..kit import lab
from .groups import Group, damage, restoring


@pytest.mark.parametrize(
    "file",
    [
        "ckpt-3.data-00000-of-00002",
        "ckpt-3.data-00001-of-00002",
        "ckpt-3.index",
        "ckpt-3.manifest.json",
    ],
)
def test_if_the_newest_is_damaged_all_fall_back_and_the_log_says_why(run, file, caplog):
    if file.endswith("json"):
        (run / file).write_bytes((run / file).read_bytes()[:99])
    else:
        damage(run, file)
    group = Group(run, run, run).go()
    assert group.ends == ["ckpt-2"] * 3
    assert group.restored == [["ckpt-2"]] * 3, "a damaged checkpoint was restored from"
    assert "ckpt-3 is not usable" in caplog.text
    assert file in caplog.text or "index" in caplog.text


@pytest.mark.parametrize("how", ["missing", "truncated", "longer"])
def test_a_file_of_another_size_is_damage_even_if_bytes_are_not_verified(run, how):
    path = run / "ckpt-3.data-00001-of-00002"
    data = path.read_bytes()
    path.write_bytes(data + b"x" if how == "longer" else data[:-1])
    if how == "missing":
        path.unlink()
    assert Group(run, run, verify_data=False).go().ends == ["ckpt-2"] * 2


def test_damage_that_only_one_worker_finds_counts_for_all(run):
    """Each worker verifies its share, so the other workers find no damage."""
    damage(run, "ckpt-3.data-00001-of-00002")
    for workers in (1, 2, 3, 5):
        assert Group(*[run] * workers).go().ends == ["ckpt-2"] * workers


def test_damage_found_while_restoring_counts_for_all(run):
    def restore(worker, name, count):
        if worker == 1 and name == "ckpt-3":
            raise CheckpointDamagedError("bad sector on host 1")

    group = Group(run, run, restore=restore).go()
    assert group.ends == ["ckpt-2"] * 2
    assert group.restored[1] == ["ckpt-2"]


def test_the_damaged_one_is_noted_on_the_next_commit(run):
    damage(run, "ckpt-3.data-00001-of-00002")
    chief = lab.Chief(run, max_to_keep=9)
    session, _ = restoring(run, storage=chief.storage, managed=chief.managed)
    assert session.run() == "ckpt-2"
    assert [k.name for k in chief.managed.active] == ["ckpt-1", "ckpt-2"]
    chief.save("ckpt-4", 4)
    note = json.loads((run / ".distckpt/quarantine/ckpt-3.json").read_text())
    assert note["name"] == "ckpt-3"
    assert "ckpt-3.data-00001-of-00002" in note["reason"]
    assert (run / "ckpt-3.index").exists(), "quarantine is a note, never a deletion"
    assert Group(run).go().ends == ["ckpt-4"]
    managed = ManagedCheckpoints(LocalStorage(), str(run), 9, None, durable=True)
    assert [k.name for k in managed.active] == ["ckpt-1", "ckpt-2", "ckpt-4"]


def test_if_all_are_damaged_all_raise_and_every_reason_is_given(run):
    for number in (1, 2, 3):
        damage(run, f"ckpt-{number}.data-00000-of-00002")
    group = Group(run, run).go()
    text = group.raised(RestoreError)
    assert "None of the 3 checkpoints" in text
    assert [f"ckpt-{n}: " in text for n in (1, 2, 3)] == [True] * 3
    assert group.restored == [[], []]


def test_a_hiccup_of_the_storage_does_not_cost_the_newest_checkpoint(run):
    shaky = FaultyStorage(LocalStorage())
    shaky.add(Fault(fails(errno.EIO), Where("read", path="*data*"), "before", times=2))
    group = Group(run, run, storages=[FaultyStorage(LocalStorage()), shaky]).go()
    assert group.ends == ["ckpt-3"] * 2
    assert [b.active[-1].name for b in group.managed] == ["ckpt-3"] * 2


@pytest.mark.parametrize("what", ["saved again", "deleted"])
def test_what_another_job_changes_meanwhile_is_not_damaged(run, what):
    """All workers look again, and restore what is now the newest."""
    other = lab.Chief(run, max_to_keep=9)

    def change(storage, operation):
        if what == "saved again":
            other.save("ckpt-3", 30)
        else:
            other.save("ckpt-4", 30)
            other.managed.delete(["ckpt-3"])

    busy = FaultyStorage(LocalStorage())
    busy.add(Fault(change, Where("read", path="*ckpt-3.data*"), "before", times=1))
    group = Group(run, run, storages=[FaultyStorage(LocalStorage()), busy]).go()
    newest = "ckpt-3" if what == "saved again" else "ckpt-4"
    assert group.ends == [newest] * 2
    assert lab.number_of(run, newest) == 30
    assert group.managed[0]._damaged == {}
