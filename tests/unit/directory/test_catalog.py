"""Which checkpoints of a directory are listed and restored, whether it is in order or damaged."""

from __future__ import annotations

import logging
import os
import time

import pytest

from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState
from distckpt.core.tf_retention import Kept
from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError, ManifestError
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from ..kit import lab
from .views import ALL, catalog, view


def test_a_directory_that_is_not_there_is_empty(tmp_path):
    assert view(tmp_path / "none") == ([], None)
    assert catalog(tmp_path / "none").candidates(0.0) == []
    assert not (tmp_path / "none").exists()


def test_a_directory_in_order(run):
    assert view(run) == (ALL, "ckpt-3")
    assert catalog(run).candidates(time.time()) == ALL[::-1]


@pytest.mark.parametrize("text", [None, b"", b"\xff\xfe", b"model_checkpoint_path: ", b"all: 3"])
def test_the_manifests_replace_a_missing_or_damaged_file_of_tensorflow(run, text):
    (run / "checkpoint").unlink()
    if text is not None:
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


@pytest.mark.parametrize("edited", ["ckpt-3", "ckpt-2"])
def test_a_manifest_that_was_edited_does_not_count_but_a_restore_says_so(run, edited, caplog):
    path = run / f"{edited}.manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"step": ', b'"step": 9'))
    caplog.set_level(logging.WARNING)
    others = [name for name in ALL if name != edited]
    assert view(run) == (others, others[-1])
    assert f"{edited} is left out: " in caplog.text
    assert "was changed after it was written" in caplog.text
    assert set(catalog(run).candidates(time.time())) == set(ALL)
    with pytest.raises(ManifestError, match="was changed after it was written"):
        catalog(run).manifest(edited)


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


def test_looking_never_writes(run):
    storage = FaultyStorage(LocalStorage())
    found = Catalog(storage, str(run))
    found.view(time.time())
    found.candidates(time.time())
    found.manifest("ckpt-1")
    assert storage.writes == 0


def test_what_was_committed_before_the_file_was_first_written_stays_managed(tmp_path):
    """The first chief died in between; its checkpoint is older than the process that looks."""
    chief = lab.Chief(tmp_path / "run", max_to_keep=9)
    chief.save("ckpt-1", 1)
    (tmp_path / "run" / "checkpoint").unlink()
    found = catalog(tmp_path / "run").view(time.time() + 3600.0)
    assert [k.name for k in found.active] == ["ckpt-1"]
    assert found.last_preserved < found.active[0].timestamp


def test_a_clock_that_was_behind_does_not_make_a_checkpoint_unmanaged(run, monkeypatch):
    """The file has a preserved time that is later than a commit which the file does not list."""
    times = [1000.0, 2000.0, 3000.0]
    lab.point_to(run, ["ckpt-1", "ckpt-2"], times[:2], last_preserved=time.time() + 500.0)
    found = catalog(run).view(time.time() + 1000.0)
    newest = found.active[-1]
    assert newest.name == "ckpt-3"
    assert newest.timestamp > found.last_preserved


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
