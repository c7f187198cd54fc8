from __future__ import annotations

import contextlib
import json
import logging
import os
import time

import pytest
from google_crc32c import value as crc32c

from distckpt.core import checkpoint_state
from distckpt.core.checkpoint_state import CheckpointState
from distckpt.core.retention import Kept
from distckpt.errors import CheckpointDamagedError, ManifestError
from distckpt.roles.catalog import Catalog
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import (
    Fault,
    FaultyStorage,
    ProcessDied,
    Where,
    dies,
    fails,
)

from . import lab


def catalog(directory):
    return Catalog(LocalStorage(), str(directory))


def view(directory):
    """Returns (names, latest)."""
    found = catalog(directory).view(time.time())
    return [k.name for k in found.active], found.latest


@pytest.fixture
def run(tmp_path):
    """A directory with ckpt-1 to ckpt-3."""
    chief = lab.Chief(tmp_path / "run", max_to_keep=9)
    for number in (1, 2, 3):
        chief.save(f"ckpt-{number}", number)
    return tmp_path / "run"


ALL = ["ckpt-1", "ckpt-2", "ckpt-3"]


def test_a_directory_that_is_not_there_is_empty(tmp_path):
    assert view(tmp_path / "none") == ([], None)
    assert catalog(tmp_path / "none").candidates(0.0) == []
    assert not (tmp_path / "none").exists()


def test_a_directory_in_order(run):
    assert view(run) == (ALL, "ckpt-3")
    assert catalog(run).candidates(time.time()) == ALL[::-1]


def test_a_missing_file_of_tensorflows_is_made_up_for_by_the_manifests(run):
    (run / "checkpoint").unlink()
    assert view(run) == (ALL, "ckpt-3")


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"model_checkpoint_path: ", b"all: 3"])
def test_a_damaged_file_of_tensorflows_is_made_up_for_by_the_manifests(run, text):
    (run / "checkpoint").write_bytes(text)
    assert view(run) == (ALL, "ckpt-3")


def test_a_file_of_tensorflows_that_lags_behind(run):
    lab.point_to(run, ["ckpt-1", "ckpt-2"])
    assert view(run) == (ALL, "ckpt-3")


def test_newest_goes_by_the_order_of_commits_and_not_by_the_number(run):
    (run / "checkpoint").unlink()
    lab.Chief(run, max_to_keep=9).save("ckpt-0", 9)
    (run / "checkpoint").unlink()
    assert view(run) == ([*ALL, "ckpt-0"], "ckpt-0")


def test_what_was_preserved_is_not_listed_again_but_can_be_restored(run):
    lab.point_to(run, ["ckpt-2", "ckpt-3"], last_preserved=1.0)
    assert view(run) == (["ckpt-2", "ckpt-3"], "ckpt-3")
    assert catalog(run).candidates(time.time()) == ["ckpt-3", "ckpt-2", "ckpt-1"]


def test_a_copy_without_manifest_is_nobodys(run):
    for path in run.glob("ckpt-2.*"):
        if "manifest" not in path.name:
            (run / path.name.replace("ckpt-2", "best")).write_bytes(path.read_bytes())
    assert view(run) == (ALL, "ckpt-3")
    assert catalog(run).manifest("best") is None
    assert "best" not in catalog(run).candidates(time.time())


def test_a_listed_checkpoint_that_is_gone_is_left_out(run):
    (run / "ckpt-3.index").unlink()
    assert view(run) == (["ckpt-1", "ckpt-2"], "ckpt-2")


def test_checkpoints_of_plain_tensorflow_are_taken_over(tmp_path):
    for number in (1, 2):
        lab.plain_save(tmp_path, f"ckpt-{number}", number, listed=False)
    lab.point_to(tmp_path, ["ckpt-1", "ckpt-2"], [10.0, 20.0], 5.0)
    found = catalog(tmp_path).view(time.time())
    assert found.active == (Kept("ckpt-1", 10.0), Kept("ckpt-2", 20.0))
    assert (found.latest, found.last_preserved) == ("ckpt-2", 5.0)


def test_full_paths_in_tensorflows_file_are_understood(tmp_path):
    lab.plain_save(tmp_path, "ckpt-1", 1)
    lab.point_to(tmp_path, [f"{tmp_path}/ckpt-1"])
    assert view(tmp_path) == (["ckpt-1"], "ckpt-1")


def test_a_plain_checkpoint_later_than_ours_is_newer(run):
    lab.plain_save(run, "ckpt-4", 4, listed=False)
    lab.point_to(run, [*ALL, "ckpt-4"])
    assert view(run) == ([*ALL, "ckpt-4"], "ckpt-4")


def test_times_in_the_future_are_cut_back_with_a_warning(run, caplog):
    lab.point_to(run, ALL, [1e12, 2e12, 3e12], 5e11)
    now = time.time()
    found = catalog(run).view(now)
    assert found.last_preserved == now
    assert "clock is" in caplog.text


# --- Which is the newest, when TensorFlow's file lags behind


def commit(directory, *saves, pointed=False, max_to_keep=9):
    """Saves (name, number) one after the other; unless `pointed`, each by a process that dies."""
    for name, number in saves:
        died = [] if pointed else [Fault(dies(), Where("rename", "*/checkpoint"))]
        storage = FaultyStorage(lab.FastStorage(), died)
        chief = lab.Chief(directory, storage, max_to_keep=max_to_keep)
        with contextlib.suppress(ProcessDied):
            chief.save(name, number)
        assert storage.dead is not pointed


def without(directory, name, *fields):
    """Removes fields of a manifest."""
    path = directory / f"{name}.manifest.json"
    body = json.loads(path.read_text())
    for field in fields:
        del body[field]
    path.write_text(json.dumps(body))


OLD, NEW = [1e9, 1e9 + 1, 1e9 + 2], [2e9, 2e9 + 1, 2e9 + 2]


@pytest.fixture(params=[OLD, NEW, None], ids=["clock behind", "clock ahead", "no times"])
def plain(request):
    """Returns a function that saves (name, number) as plain TensorFlow does, by any clock."""

    def plain(directory, *saves):
        for name, number in saves:
            lab.plain_save(directory, name, number, listed=False)
        names = [name for name, _ in saves]
        if request.param:
            lab.point_to(directory, names, request.param[-len(names) :])
            return
        state = checkpoint_state.CheckpointState(names[-1], tuple(names))
        (directory / "checkpoint").write_bytes(checkpoint_state.render(state))

    return plain


def test_what_was_committed_after_plain_tensorflow_is_newer(tmp_path, plain):
    plain(tmp_path, ("ckpt-1", 1), ("ckpt-2", 2))
    commit(tmp_path, ("ckpt-3", 3), ("ckpt-1", 4))
    names, latest = view(tmp_path)
    assert latest == "ckpt-1"
    assert names[-2:] == ["ckpt-3", "ckpt-1"]
    assert lab.restorable(tmp_path) == ("ckpt-1", 4)


def test_what_plain_tensorflow_saved_after_a_commit_is_newer(run, plain):
    commit(run, ("ckpt-4", 4), ("ckpt-5", 5))
    plain(run, ("ckpt-0", 9))
    assert lab.restorable(run) == ("ckpt-0", 9)


def test_saved_again_and_again_over_what_the_file_names(tmp_path, plain):
    plain(tmp_path, ("ckpt-1", 1))
    commit(tmp_path, ("ckpt-2", 2), ("ckpt-1", 3), ("ckpt-3", 4), ("ckpt-1", 5))
    assert view(tmp_path) == (["ckpt-2", "ckpt-3", "ckpt-1"], "ckpt-1")


def test_a_listed_number_that_was_saved_again_hides_nothing(run):
    commit(run, ("ckpt-4", 4), ("ckpt-3", 5))
    assert view(run) == (["ckpt-1", "ckpt-2", "ckpt-4", "ckpt-3"], "ckpt-3")
    commit(run, ("ckpt-3", 6))
    assert view(run) == (["ckpt-1", "ckpt-2", "ckpt-4", "ckpt-3"], "ckpt-3")


def test_the_same_bytes_for_a_name_that_plain_tensorflow_saved_again(tmp_path):
    """`tf.train.Checkpoint.save` writes no times; a training from the beginning, the same names."""
    state = checkpoint_state.render(checkpoint_state.CheckpointState("ckpt-1", ("ckpt-1",)))
    lab.plain_save(tmp_path, "ckpt-1", 1, listed=False)
    (tmp_path / "checkpoint").write_bytes(state)
    commit(tmp_path, ("ckpt-2", 2), pointed=True)
    lab.plain_save(tmp_path, "ckpt-1", 3, listed=False)
    (tmp_path / "checkpoint").write_bytes(state)
    assert lab.restorable(tmp_path) == ("ckpt-1", 3)
    commit(tmp_path, ("ckpt-4", 4))
    assert view(tmp_path)[1] == "ckpt-4"


def test_a_clock_that_stands_still_writes_the_same_file_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    numbers = [1, 2, 1, 2]
    commit(tmp_path, *((f"ckpt-{n}", n) for n in numbers), pointed=True)
    assert view(tmp_path) == (["ckpt-1", "ckpt-2"], "ckpt-2")


@pytest.mark.parametrize("data", [None, b"{", b""], ids=["missing", "damaged", "empty"])
def test_what_was_committed_without_a_file_gives_way_to_plain_tensorflow(tmp_path, data):
    if data is not None:
        (tmp_path / "checkpoint").write_bytes(data)
    commit(tmp_path, ("ckpt-1", 1), ("ckpt-2", 2))
    assert view(tmp_path) == (["ckpt-1", "ckpt-2"], "ckpt-2")
    lab.plain_save(tmp_path, "ckpt-3", 3)
    assert view(tmp_path)[1] == "ckpt-3"
    commit(tmp_path, ("ckpt-4", 4))
    assert view(tmp_path)[1] == "ckpt-4"
    (tmp_path / "checkpoint").write_bytes(b"{")
    assert view(tmp_path)[1] == "ckpt-4"


def test_a_manifest_that_does_not_say_what_it_follows_gives_way_to_plain_tensorflow(run):
    lab.plain_save(run, "ckpt-0", 9)
    for name in ALL:
        without(run, name, "follows")
    assert lab.restorable(run) == ("ckpt-0", 9)
    assert catalog(run).candidates(time.time()) == ["ckpt-0", "ckpt-3", "ckpt-2", "ckpt-1"]


def test_managers_of_two_names_with_plain_tensorflow_in_between(run, plain):
    plain(run, ("best-1", 1))
    commit(run, ("ckpt-4", 4))
    commit(run, ("best-2", 5), pointed=True)
    assert view(run)[1] == "best-2"
    commit(run, ("ckpt-5", 6), ("best-2", 7))
    assert view(run)[1] == "best-2"
    assert lab.restorable(run) == ("best-2", 7)
    plain(run, ("ckpt-9", 9))
    assert lab.restorable(run) == ("ckpt-9", 9)


def test_a_commit_whose_file_could_not_be_written_is_no_stranger_to_the_next(tmp_path):
    lab.plain_save(tmp_path, "ckpt-1", 1)
    fault = Fault(fails(28), Where("rename", "*/checkpoint"), times=2)
    chief = lab.Chief(tmp_path, FaultyStorage(lab.FastStorage(), [fault]), max_to_keep=9)
    for number in (2, 3):
        chief.save(f"ckpt-{number}", number)
        assert view(tmp_path)[1] == f"ckpt-{number}"
    assert view(tmp_path) == (["ckpt-1", "ckpt-2", "ckpt-3"], "ckpt-3")


# --- Manifests


def test_a_renamed_manifest_is_not_believed(run):
    (run / "ckpt-1.manifest.json").rename(run / "ckpt-9.manifest.json")
    (run / "ckpt-1.index").rename(run / "ckpt-9.index")
    with pytest.raises(ManifestError, match="copied or renamed"):
        catalog(run).manifest("ckpt-9")


def test_a_damaged_manifest_keeps_a_checkpoint_from_being_restored_with_a_warning(run, caplog):
    (run / "checkpoint").unlink()
    (run / "ckpt-3.manifest.json").write_bytes(b"{")
    caplog.set_level(logging.WARNING)
    assert view(run) == (["ckpt-1", "ckpt-2"], "ckpt-2")
    assert "ckpt-3" in caplog.text


def test_a_manifest_without_index_is_damage(run):
    (run / "ckpt-3.index").unlink()
    with pytest.raises(CheckpointDamagedError, match=r"ckpt-3\.index"):
        catalog(run).manifest("ckpt-3")


def test_a_manifest_with_a_damaged_index_is_damage(run):
    path = run / "ckpt-3.index"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ManifestError, match="damaged"):
        catalog(run).manifest("ckpt-3")


def test_what_plain_tensorflow_saved_over_ours_is_a_plain_checkpoint(run):
    lab.plain_save(run, "ckpt-3", 33, listed=False)
    assert catalog(run).manifest("ckpt-3") is None
    assert lab.restorable(run) == ("ckpt-3", 33)


def test_a_manifest_that_cannot_be_read_is_not_one_that_is_absent(run):
    fault = Fault(fails(5), Where("read", "*manifest.json"))
    with pytest.raises(CheckpointDamagedError, match="cannot be read"):
        Catalog(FaultyStorage(LocalStorage(), [fault]), str(run)).manifest("ckpt-3")


# --- Quarantine


def note(run, name, index_crc32c, reason="bad sector"):
    folder = run / ".distckpt/quarantine"
    folder.mkdir(parents=True, exist_ok=True)
    data = {"name": name, "index_crc32c": index_crc32c, "reason": reason}
    (folder / f"{name}.json").write_text(json.dumps(data))


def test_a_checkpoint_with_a_note_is_neither_listed_nor_restored(run):
    note(run, "ckpt-3", crc32c((run / "ckpt-3.index").read_bytes()))
    assert catalog(run).quarantined() == {"ckpt-3": "bad sector"}
    assert view(run) == (["ckpt-1", "ckpt-2"], "ckpt-2")
    assert "ckpt-3" not in catalog(run).candidates(time.time())


def test_a_note_on_another_version_of_the_same_name_does_not_hold(run):
    note(run, "ckpt-3", 12345)
    assert catalog(run).quarantined() == {}
    assert view(run) == (ALL, "ckpt-3")


def test_a_note_on_a_missing_index_holds_until_there_is_one(run):
    note(run, "ckpt-4", None)
    assert catalog(run).quarantined() == {"ckpt-4": "bad sector"}
    lab.Chief(run, max_to_keep=9).save("ckpt-4", 4)
    assert catalog(run).quarantined() == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', "\x00"])
def test_what_is_no_note_is_ignored(run, text):
    note(run, "ckpt-3", None)
    (run / ".distckpt/quarantine/ckpt-3.json").write_text(text)
    assert catalog(run).quarantined() == {}


def test_a_note_that_points_elsewhere_is_ignored(run):
    """Reading, too, stays within the directory."""
    note(run, "ckpt-3", None)
    path = run / ".distckpt/quarantine/ckpt-3.json"
    path.write_text(json.dumps({"name": 7, "index_crc32c": None, "reason": ""}))
    assert catalog(run).quarantined() == {}


def test_looking_never_writes(run):
    storage = FaultyStorage(LocalStorage())
    found = Catalog(storage, str(run))
    found.view(time.time())
    found.candidates(time.time())
    found.manifest("ckpt-1")
    assert storage.writes == 0


def test_what_was_committed_before_the_file_was_first_written_stays_managed(tmp_path):
    """The first chief died in between; its checkpoint is older than the one who looks."""
    chief = lab.Chief(tmp_path / "run", max_to_keep=9)
    chief.save("ckpt-1", 1)
    (tmp_path / "run" / "checkpoint").unlink()
    found = catalog(tmp_path / "run").view(time.time() + 3600.0)
    assert [k.name for k in found.active] == ["ckpt-1"]
    assert found.last_preserved < found.active[0].timestamp


def test_a_clock_that_was_behind_does_not_make_a_checkpoint_unmanaged(run, monkeypatch):
    """The time of the last preserved one is later than that of a commit the file knows not of."""
    times = [1000.0, 2000.0, 3000.0]
    lab.point_to(run, ["ckpt-1", "ckpt-2"], times[:2], last_preserved=time.time() + 500.0)
    found = catalog(run).view(time.time() + 1000.0)
    newest = found.active[-1]
    assert newest.name == "ckpt-3"
    assert newest.timestamp > found.last_preserved


# --- Malice


@pytest.mark.parametrize(
    "latest", ["{outside}/ckpt-7", "../outside/ckpt-7", "a\0b", "..", "x" * 999]
)
def test_nothing_outside_is_read_on_the_word_of_tensorflows_file(run, tmp_path, latest):
    lab.plain_save(tmp_path / "outside", "ckpt-7", 7)
    latest = latest.format(outside=tmp_path / "outside")
    state = CheckpointState(latest, (latest,))
    (run / "checkpoint").write_bytes(checkpoint_state.render(state))
    storage = FaultyStorage(LocalStorage())
    found = Catalog(storage, str(run))
    assert found.view(time.time()).latest is None
    assert found.candidates(time.time()) == ["ckpt-3", "ckpt-2", "ckpt-1"]
    found.pointer()
    for operation in storage.operations:
        for path in operation.paths:
            assert os.path.realpath(path).startswith(str(run)), operation
