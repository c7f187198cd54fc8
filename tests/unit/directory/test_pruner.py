from __future__ import annotations

import errno
import json
import logging
import os
import pathlib
import threading

import pytest

from distckpt.core import manifest_checksum
from distckpt.core.manifest import Commit
from distckpt.directory.catalog import Catalog
from distckpt.directory.pruner import Pruner
from distckpt.testing.faulty_storage import AFTER, Fault, FaultyStorage, Where, fails

from ..kit import lab


@pytest.fixture
def chief(tmp_path):
    """A chief with ckpt-1 to ckpt-3; ckpt-2 was written by two workers."""
    storage = FaultyStorage(lab.FastStorage())
    chief = lab.Chief(tmp_path / "run", storage, max_to_keep=9)
    for number in (1, 2, 3):
        chief.save(f"ckpt-{number}", number, workers=1 + (number == 2))
    return chief


def prune(chief, *names, threads=1):
    storage = chief.storage
    Pruner(storage, chief.directory, chief.ownership, durable=True, threads=threads).prune(names)


def test_all_files_of_the_named_go_and_no_others(chief):
    prune(chief, "ckpt-2", "ckpt-1")
    assert lab.leftovers(chief.directory, ["ckpt-3"]) == ([], [])
    assert lab.number_of(chief.directory, "ckpt-3") == 3


def test_the_manifest_goes_first_and_durably(chief):
    done = chief.storage.writes
    prune(chief, "ckpt-2")
    phase_log = [
        (o.kind, os.path.basename(o.paths[0])) for o in chief.storage.operations if o.writing > done
    ]
    folder = phase_log[0][1]
    assert phase_log == [
        ("make_directory", folder),
        ("freshen", "terms"),
        ("flush_directory", "run"),
        ("rename", "ckpt-2.manifest.json"),
        ("flush_directory", folder),
        ("flush_directory", "run"),
        ("rename", "ckpt-2.index"),
        ("flush_directory", "run"),
        ("freshen", "holds"),  # has somebody pinned it?
        ("rename", "ckpt-2.data-00000-of-00002"),
        ("rename", "ckpt-2.data-00001-of-00002"),
        ("flush_directory", "run"),
        ("remove_tree", folder),
    ]


def test_a_checkpoint_that_somebody_else_deleted_is_no_trouble(chief, caplog):
    for name in list(lab.files_in(chief.directory)):
        if name.startswith("ckpt-2"):
            os.unlink(os.path.join(chief.directory, name))
    prune(chief, "ckpt-2", "ckpt-7")
    assert lab.leftovers(chief.directory, ["ckpt-1", "ckpt-3"]) == ([], [])
    assert caplog.records == []


def test_a_checkpoint_of_plain_tensorflow_goes_too(chief):
    lab.plain_save(chief.directory, "ckpt-8", 8, listed=False)
    prune(chief, "ckpt-8")
    assert lab.leftovers(chief.directory, ["ckpt-1", "ckpt-2", "ckpt-3"]) == ([], [])


def test_the_manifest_that_plain_tensorflow_has_outdated_goes_before_the_tombstone_comes(chief):
    lab.plain_save(chief.directory, "ckpt-2", 8, listed=False)
    done = chief.storage.writes
    prune(chief, "ckpt-2")
    phase_log = [
        (o.kind, os.path.basename(o.paths[-1]))
        for o in chief.storage.operations
        if o.writing > done + 3
    ]
    assert phase_log[0] == ("rename", "outdated.json")
    assert [kind for kind, _ in phase_log[1:3]] == ["flush_directory"] * 2
    assert phase_log[3] == ("write", "tombstone.json")
    assert lab.leftovers(chief.directory, ["ckpt-1", "ckpt-3"]) == ([], [])


# --- Several files at the same time


@pytest.fixture
def wide(tmp_path):
    """A chief with ckpt-1, written by eight workers, and ckpt-2."""
    chief = lab.Chief(tmp_path / "run", FaultyStorage(lab.FastStorage()), max_to_keep=9)
    chief.save("ckpt-1", 1, workers=8)
    chief.save("ckpt-2", 2)
    return chief


class MeetingStorage(lab.FastStorage):
    """Renames and removes data files only two at a time."""

    def __init__(self):
        self._two = threading.Barrier(2, timeout=300)
        self.met = []

    def rename(self, source, target):
        self._meet("rename", source)
        super().rename(source, target)

    def remove(self, path):
        self._meet("remove", path)
        super().remove(path)

    def _meet(self, kind, path):
        if "ckpt-1.data-" in path:
            self._two.wait()
            self.met.append(kind)


def test_data_files_are_removed_at_the_same_time(wide):
    storage = MeetingStorage()
    pruner = Pruner(storage, wide.directory, wide.ownership, durable=True)
    assert pruner.prune(["ckpt-1"]) == frozenset()
    assert sorted(storage.met) == ["remove"] * 8 + ["rename"] * 8
    assert lab.leftovers(wide.directory, ["ckpt-2"]) == ([], [])


def test_a_file_that_cannot_be_removed_is_one_warning_and_the_next_save_removes_it(wide, caplog):
    wide.storage.add(Fault(fails(errno.EIO), Where("rename", "*/ckpt-1.data-00003*"), times=2))
    prune(wide, "ckpt-1", threads=4)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "ckpt-1" in caplog.text
    wide.storage.forget_faults()
    wide.save("ckpt-3", 3)
    assert lab.leftovers(wide.directory, ["ckpt-2", "ckpt-3"]) == ([], [])


@pytest.mark.parametrize("threads", [1, 4])
def test_whoever_is_replaced_in_the_middle_removes_nothing_more(wide, threads):
    def replace(storage, operation):
        lab.Chief(wide.directory).ownership.take()

    wide.storage.add(Fault(replace, Where("rename", "*/ckpt-1.index"), AFTER))
    before = {f for f in lab.files_in(wide.directory) if "ckpt-1.data-" in f}
    prune(wide, "ckpt-1", threads=threads)
    assert before == {f for f in lab.files_in(wide.directory) if f.startswith("ckpt-1.data-")}


def test_each_tombstone_is_read_by_nobody_but_a_successor(wide):
    done = len(wide.storage.operations)
    prune(wide, "ckpt-1")
    read = [o.paths[0] for o in wide.storage.operations[done:] if o.kind == "read"]
    assert [path for path in read if path.endswith("tombstone.json")] == []


# --- What is not to be deleted


def test_files_that_only_look_similar_stay(chief):
    kept = ["ckpt-2", "ckpt-21.index", "ckpt-2.index.bak", "ckpt-2.txt", "ckpt-2.data-0-of-1"]
    for name in kept:
        with open(os.path.join(chief.directory, name), "w") as file:
            file.write("mine")
    prune(chief, "ckpt-2")
    assert lab.leftovers(chief.directory, ["ckpt-1", "ckpt-3"])[0] == sorted(kept)


def test_a_damaged_manifest_keeps_its_files(chief, caplog):
    path = os.path.join(chief.directory, "ckpt-2.manifest.json")
    with open(path, "w") as file:
        file.write("{")
    before = lab.content(chief.directory)
    prune(chief, "ckpt-2", "ckpt-1")
    assert "ckpt-2" in caplog.text
    after = lab.content(chief.directory)
    assert {f for f in before if f not in after} == {f for f in before if f.startswith("ckpt-1.")}


def test_a_replaced_chief_deletes_nothing(chief, caplog):
    lab.Chief(chief.directory).ownership.take()
    before = lab.content(chief.directory)
    prune(chief, "ckpt-1")
    assert lab.content(chief.directory) == before
    assert "taken over" in caplog.text


@pytest.mark.parametrize("file", ["ckpt-1.manifest.json", "ckpt-1.index", "ckpt-1.data*"])
def test_what_fails_is_a_warning_and_the_next_goes_all_the_same(chief, caplog, file):
    chief.storage.add(Fault(fails(errno.EIO), Where("rename", f"*/{file}")))
    prune(chief, "ckpt-1", "ckpt-2")
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "ckpt-1" in caplog.text
    assert not os.path.exists(os.path.join(chief.directory, "ckpt-2.index"))


@pytest.mark.parametrize("file", ["ckpt-1.index", "ckpt-1.data*"])
def test_a_deletion_that_failed_halfway_is_finished_by_the_next_save(chief, file):
    chief.storage.add(Fault(fails(errno.EIO), Where("rename", f"*/{file}")))
    prune(chief, "ckpt-1")
    chief.save("ckpt-4", 4)
    assert lab.leftovers(chief.directory, ["ckpt-2", "ckpt-3", "ckpt-4"]) == ([], [])


def test_a_version_saved_after_a_halfway_deletion_stays(chief):
    """The tombstone is about an older version of the same name."""
    chief.storage.add(Fault(fails(errno.EIO), Where("rename", "*/ckpt-2.data*")))
    prune(chief, "ckpt-2")
    other = lab.Chief(chief.directory, max_to_keep=9)
    other.save("ckpt-2", 22, workers=2)
    assert lab.number_of(chief.directory, "ckpt-2") == 22
    assert lab.leftovers(chief.directory, ["ckpt-1", "ckpt-2", "ckpt-3"]) == ([], [])


def test_what_plain_tensorflow_saved_after_a_halfway_deletion_stays(chief):
    chief.storage.add(Fault(fails(errno.EIO), Where("rename", "*/ckpt-2.index")))
    prune(chief, "ckpt-2")
    lab.plain_save(chief.directory, "ckpt-2", 22, listed=False)
    chief.save("ckpt-4", 4)
    assert lab.number_of(chief.directory, "ckpt-2") == 22


def copy_manifest(chief, source, target, **changes):
    """Copies a manifest as `cp` does, but for `changes` of its fields."""
    folder = pathlib.Path(chief.directory)
    body = json.loads((folder / f"{source}.manifest.json").read_text())
    del body["checksum"]
    data = manifest_checksum.add(json.dumps({**body, **changes}).encode())
    (folder / f"{target}.manifest.json").write_bytes(data)


def test_a_manifest_copied_from_another_checkpoint_deletes_nothing(chief, caplog):
    copy_manifest(chief, "ckpt-3", "ckpt-1")
    before = lab.content(chief.directory)
    prune(chief, "ckpt-1")
    assert "is the manifest of 'ckpt-3'; somebody copied or renamed it" in caplog.text
    assert lab.content(chief.directory).items() >= before.items()
    assert lab.number_of(chief.directory, "ckpt-3") == 3


@pytest.mark.parametrize(
    "file", ["ckpt-3.data-00000-of-00001", "ckpt-3.index", "checkpoint", ".distckpt", "notes.txt"]
)
def test_a_manifest_that_claims_what_is_not_its_own_deletes_nothing(chief, caplog, file):
    (pathlib.Path(chief.directory) / "notes.txt").write_text("mine")
    claimed = {"name": file, "size": 1, "worker": 0}
    copy_manifest(chief, "ckpt-1", "ckpt-1", files=[claimed], entries=[])
    before = lab.content(chief.directory)
    prune(chief, "ckpt-1")
    assert "is not one of the files of ckpt-1" in caplog.text
    assert lab.content(chief.directory).items() >= before.items()
    assert lab.number_of(chief.directory, "ckpt-3") == 3


def test_nothing_is_deleted_after_a_commit_that_is_not_there_any_more(wide, caplog):
    """As when a backup of this very term has taken the directory's place."""
    pruner = Pruner(wide.storage, wide.directory, wide.ownership, durable=True)
    gone = Commit("ckpt-9", "00000001-000009-0")
    assert pruner.prune(["ckpt-1"], gone) == frozenset(["ckpt-1"])
    assert "ckpt-9, which was committed before, is missing" in caplog.text
    newest = Catalog(wide.storage, wide.directory).manifest("ckpt-2").commit
    assert pruner.prune(["ckpt-1"], newest) == frozenset()


@pytest.mark.parametrize("path", ["ckpt-1", "./ckpt-1", "{directory}/ckpt-1"])
def test_what_the_file_checkpoint_names_as_the_newest_stays(wide, caplog, path):
    """A backup from before the newest commit's file `checkpoint` has come back."""
    newest = path.format(directory=wide.directory)
    pointer = os.path.join(wide.directory, "checkpoint")
    with open(pointer, "w") as file:
        file.write(f'model_checkpoint_path: "{newest}"\n')
    prune(wide, "ckpt-1")
    assert "checkpoint names it as the newest" in caplog.text
    wide.save("ckpt-3", 3)
    assert lab.leftovers(wide.directory, ["ckpt-1", "ckpt-2", "ckpt-3"]) == ([], [])


def test_an_unreadable_file_checkpoint_keeps_nothing(wide):
    with open(os.path.join(wide.directory, "checkpoint"), "w") as file:
        file.write("not a message")
    prune(wide, "ckpt-1")
    assert lab.leftovers(wide.directory, ["ckpt-2"]) == ([], [])
