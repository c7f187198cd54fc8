from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib

import pytest

from distckpt.core import attempts, manifest_json
from distckpt.core import manifest as manifests
from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.errors import SupersededError
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import (
    AFTER,
    Fault,
    FaultyStorage,
    ProcessDied,
    Where,
    dies,
    fails,
)

from ..kit import bundles, lab


def cut_off(directory, name, number, where, moment="before", **options):
    """A process saves and dies at `where`."""
    storage = FaultyStorage(lab.FastStorage(), [Fault(dies(), where, moment)])
    chief = lab.Chief(directory, storage, **options)
    with contextlib.suppress(ProcessDied):
        chief.save(name, number, 2)
    assert storage.dead


def taken_over(directory, storage=None):
    """A new process that owns the directory and has settled it."""
    chief = lab.Chief(directory, storage)
    chief.ownership.take()
    cleanup(chief).finish_all()
    return chief


def cleanup(chief):
    return AttemptCleanup(chief.storage, chief.directory, chief.ownership, durable=True)


def top(directory):
    return {f for f in lab.files_in(directory) if not f.startswith(".distckpt")}


@pytest.fixture
def run(tmp_path):
    """A directory with ckpt-1."""
    lab.Chief(tmp_path / "run").save("ckpt-1", 1)
    return tmp_path / "run"


def test_a_directory_in_order_is_not_touched(run):
    before = lab.content(run)
    storage = FaultyStorage(lab.FastStorage())
    chief = lab.Chief(run, storage)
    chief.ownership.take()
    done = storage.writes
    cleanup(chief).finish_all()
    assert storage.writes == done
    after = lab.content(run)
    assert {f: after[f] for f in before} == before


@pytest.mark.parametrize(
    "where",
    [
        Where("write", "*/probe"),
        Where("flush"),
        Where("rename", "*/ckpt-2.data-00001*"),
        Where("write", "*/manifest.json"),
        Where("rename", "*/ckpt-2.index"),
        Where("rename", "*/ckpt-2.manifest.json"),
    ],
)
def test_a_save_that_was_not_committed_vanishes(run, where):
    before = top(run)
    cut_off(run, "ckpt-2", 2, where)
    assert top(run) != before
    taken_over(run)
    assert top(run) == before


def test_a_save_that_was_committed_stays(run):
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.manifest.json"), AFTER)
    taken_over(run)
    assert lab.restorable(run) == ("ckpt-2", 2)
    assert not [f for f in top(run) if "pending" in f]


def test_a_switch_is_completed_if_the_new_index_is_in_place(run):
    cut_off(run, "ckpt-1", 9, Where("rename", "*/ckpt-1.index"), AFTER)
    taken_over(run)
    assert lab.number_of(run, "ckpt-1") == 9
    assert len(top(run)) == len(["checkpoint", "index", "manifest", "data", "data"])


def test_a_switch_is_undone_if_the_old_index_is_in_place(run):
    before = {f: d for f, d in lab.content(run).items() if f in top(run)}
    cut_off(run, "ckpt-1", 9, Where("rename", "*/ckpt-1.index"))
    taken_over(run)
    assert {f: d for f, d in lab.content(run).items() if f in top(run)} == before


def test_a_switch_from_plain_tensorflow_is_undone_to_no_manifest(tmp_path):
    lab.plain_save(tmp_path, "ckpt-1", 1)
    before = lab.content(tmp_path)
    cut_off(tmp_path, "ckpt-1", 9, Where("rename", "*/ckpt-1.index"))
    assert (tmp_path / "ckpt-1.manifest.json").exists()
    taken_over(tmp_path)
    assert {f: d for f, d in lab.content(tmp_path).items() if f in top(tmp_path)} == before


def test_an_index_that_neither_version_wrote_is_left_with_all_its_files(run, caplog):
    cut_off(run, "ckpt-1", 9, Where("rename", "*/ckpt-1.index"))
    index, _ = bundles.bundle_files([("x", (2,), None, bundles.values(1)["bias"][:2])])
    (run / "ckpt-1.index").write_bytes(index)
    before = {f for f in top(run) if "pending" not in f}
    taken_over(run)
    assert top(run) == before
    assert "foreign index" in caplog.text


def test_a_damaged_manifest_leaves_its_files_as_they_are(run, caplog):
    cut_off(run, "ckpt-1", 9, Where("rename", "*/ckpt-1.index"))
    (run / "ckpt-1.manifest.json").write_bytes(b"{")
    before = {f for f in top(run) if "pending" not in f}
    taken_over(run)
    assert top(run) == before
    assert "left as they are" in caplog.text


def test_what_is_not_understood_is_nobodys_to_delete(run):
    (run / "events.out.tfevents").write_text("x")
    (run / "ckpt-5.pending-mine").mkdir()
    (run / "best.index").write_text("x")
    (run / "best.data-00000-of-00001").write_text("x")
    before = top(run)
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.index"))
    taken_over(run)
    assert top(run) == before


def test_running_saves_of_this_process_are_left_alone(run):
    chief = taken_over(run)
    folder = attempts.pending_name("ckpt-5", chief.ownership.held_term.next_attempt())
    chief.ownership.enter(folder)
    cleanup(chief).finish_all()
    assert (run / folder).is_dir()
    chief.ownership.held_term.in_flight.discard(folder)
    cleanup(chief).finish_all()
    assert not (run / folder).exists()


def test_a_replaced_chief_leaves_the_saves_of_its_successor_alone(run):
    old, new = taken_over(run), taken_over(run)
    folder = attempts.pending_name("ckpt-5", new.ownership.held_term.next_attempt())
    new.ownership.enter(folder)
    with contextlib.suppress(SupersededError):
        cleanup(old).finish_all()
    assert (run / folder).is_dir()


def test_folders_that_a_dead_successor_was_settling_are_settled(run):
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.manifest.json"))
    storage = FaultyStorage(
        lab.FastStorage(), [Fault(dies(), Where("rename", "*/ckpt-2.data-00001*"))]
    )
    with pytest.raises(ProcessDied):
        taken_over(run, storage)
    assert any((run / ".distckpt/abandoned").rglob("*"))
    taken_over(run)
    assert top(run) == {
        "checkpoint",
        "ckpt-1.index",
        "ckpt-1.data-00000-of-00001",
        "ckpt-1.manifest.json",
    }
    assert not list((run / ".distckpt/abandoned").iterdir())


def test_an_error_in_the_middle_is_repaired_by_the_next_try(run):
    before = top(run)
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.manifest.json"))
    storage = FaultyStorage(
        lab.FastStorage(), [Fault(fails(errno.EIO), Where("rename", "*.index"))]
    )
    chief = lab.Chief(run, storage)
    chief.ownership.take()
    with pytest.raises(OSError, match="Input/output"):
        cleanup(chief).finish_all()
    cleanup(chief).finish_all()
    assert top(run) == before


def test_rolling_back_twice_is_as_good_as_once(run):
    before = top(run)
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.manifest.json"))
    folder = next(f.split("/")[0] for f in top(run) if "pending" in f)
    chief = lab.Chief(run)
    chief.ownership.take()
    cleanup(chief).roll_back(folder)
    cleanup(chief).roll_back(folder)
    assert top(run) == before


def test_half_written_files_are_removed_by_the_next_owner(run):
    cut_off(run, "ckpt-2", 2, Where("create"), "during")
    (run / ".checkpoint.0123456789abcdef.tmp").write_text("half")
    assert [f for f in lab.files_in(run) if f.endswith(".tmp") and "terms" in f]
    lab.Chief(run).save("ckpt-3", 3)
    assert lab.leftovers(run, ["ckpt-1", "ckpt-3"]) == ([], [])


def die_before_the_index(directory):
    """A process of one worker saves ckpt-1 and dies when its data has moved, its index not."""
    where = Where("rename", str(directory / "ckpt-1.index"))
    storage = FaultyStorage(lab.FastStorage(), [Fault(dies(), where)])
    with contextlib.suppress(ProcessDied):
        lab.Chief(directory, storage).save("ckpt-1", 1)
    assert storage.dead


def test_what_plain_tensorflow_saved_since_is_spared(tmp_path):
    """Its data file has the name that the save which was cut off had given to its own."""
    die_before_the_index(tmp_path)
    lab.plain_save(tmp_path, "ckpt-1", 5)
    before = {f: d for f, d in lab.content(tmp_path).items() if "pending" not in f}
    taken_over(tmp_path)
    assert lab.number_of(tmp_path, "ckpt-1") == 5
    assert {f: d for f, d in lab.content(tmp_path).items() if f in top(tmp_path)} == {
        f: d for f, d in before.items() if not f.startswith(".distckpt")
    }


def test_data_that_a_damaged_index_may_name_is_spared_with_a_warning(tmp_path, caplog):
    die_before_the_index(tmp_path)
    lab.plain_save(tmp_path, "ckpt-1", 5)
    index = tmp_path / "ckpt-1.index"
    whole = index.read_bytes()
    index.write_bytes(whole[:-1])
    taken_over(tmp_path)
    assert "left as they are" in caplog.text
    index.write_bytes(whole)
    assert lab.number_of(tmp_path, "ckpt-1") == 5
    lab.Chief(tmp_path, max_to_keep=1).save("ckpt-1", 6)
    assert lab.leftovers(tmp_path, ["ckpt-1"]) == ([], []), "the next save tidies up"


def test_files_of_a_saver_that_plain_tensorflow_may_have_written_since_are_spared(tmp_path):
    """The index does not name them, so nothing says which checkpoint they belong to."""
    die_before_the_index(tmp_path)
    prepared = next(tmp_path.glob("*.pending-*")) / "manifest.json"
    manifest = manifest_json.parse(prepared.read_bytes())
    extra = manifests.FileRecord("ckpt-1-vocabulary", 3, 0)
    manifest = dataclasses.replace(manifest, files=(*manifest.files, extra))
    prepared.write_bytes(manifest_json.render(manifest))
    (tmp_path / extra.name).write_bytes(b"abc")
    lab.plain_save(tmp_path, "ckpt-1", 5)
    taken_over(tmp_path)
    assert (tmp_path / extra.name).read_bytes() == b"abc"


def test_links_are_not_followed(run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    cut_off(run, "ckpt-2", 2, Where("write", "*/manifest.json"))
    folder = next(run.glob("*.pending-*"))
    (folder / "link").symlink_to(outside)
    taken_over(run)
    assert (outside / "precious").read_text() == "x"
    assert not folder.exists()


@pytest.mark.parametrize("link", ["abandoned/00000001", "abandoned/00000003", "abandoned"])
def test_what_has_been_abandoned_is_not_looked_for_behind_a_link(run, tmp_path, link):
    """All that is found there is deleted; which term will look there, anybody can tell."""
    outside = tmp_path / "outside"
    for folder in (outside, outside / "00000001" / "deep"):
        folder.mkdir(parents=True)
        (folder / "precious").write_text("x")
    cut_off(run, "ckpt-2", 2, Where("write", "*/manifest.json"))
    chief = lab.Chief(run)
    chief.ownership.take()
    root = run / ".distckpt" / "abandoned"
    root.mkdir(exist_ok=True)
    if link == "abandoned":
        root.rmdir()
    (run / ".distckpt" / link).symlink_to(outside)
    cleanup(chief).finish_all()
    assert sorted(p.name for p in outside.rglob("*")) == [
        "00000001",
        "deep",
        "precious",
        "precious",
    ]
    assert not list(run.glob("*.pending-*"))


def test_a_pending_folder_that_is_a_link_is_not_worked_in(run, tmp_path):
    """Files are moved there before their deletion; a file of the same name would be overwritten."""
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.index"))
    folder = next(run.glob("*.pending-*"))
    (tmp_path / "outside").mkdir()
    moved = folder.rename(tmp_path / "outside" / "x")
    (moved / "ckpt-2.data-00000-of-00002").write_text("precious")
    folder.symlink_to(moved)
    taken_over(run)
    assert not os.path.lexists(folder)
    assert (moved / "ckpt-2.data-00000-of-00002").read_text() == "precious"


@pytest.mark.parametrize("folder", ["terms", "quarantine"])
def test_temporary_files_are_not_removed_behind_a_link(run, tmp_path, folder):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ".precious.tmp").write_text("x")
    chief = lab.Chief(run)
    chief.ownership.take()
    path = run / ".distckpt" / folder
    if path.exists():
        path.rename(tmp_path / "away")
    path.symlink_to(tmp_path / "outside")
    cleanup(chief).remove_temporaries()
    assert (tmp_path / "outside" / ".precious.tmp").exists()


def test_a_prepared_manifest_that_names_foreign_files_is_not_believed(run):
    """Whatever is written there, nothing outside the directory is touched."""
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.index"))
    path = next(run.glob("*.pending-*")) / "manifest.json"
    victim = run.parent / "victim"
    victim.write_text("x")
    path.write_bytes(path.read_bytes().replace(b"ckpt-2.data-00000-of-00002", b"../victim"))
    taken_over(run)
    assert victim.read_text() == "x"


@pytest.mark.parametrize("file", ["tombstone.json", "manifest.json"])
def test_what_is_about_another_checkpoint_than_its_folder_is_not_believed(run, caplog, file):
    cut_off(run, "ckpt-2", 2, Where("write", "*/probe"))
    folder = next(run.glob("*.pending-*"))
    (folder / file).write_bytes((run / "ckpt-1.manifest.json").read_bytes())
    (run / "ckpt-1.manifest.json").unlink()  # or it would protect its files
    taken_over(run)
    assert f"{file} is about ckpt-1; somebody put it there" in caplog.text
    assert {"ckpt-1.index", "ckpt-1.data-00000-of-00001"} <= top(run)
    assert not list(run.glob("*.pending-*"))


def test_an_unreadable_folder_is_an_error_and_not_an_empty_one(run):
    cut_off(run, "ckpt-2", 2, Where("rename", "*/ckpt-2.index"))
    where = Where("read", "*/manifest.json")
    storage = FaultyStorage(LocalStorage(), [Fault(fails(errno.EIO), where)])
    chief = lab.Chief(run, storage)
    chief.ownership.take()
    with pytest.raises(OSError, match="Input/output"):
        cleanup(chief).finish_all()
    assert list(pathlib.Path(run, ".distckpt/abandoned").rglob("manifest.json"))
    assert os.path.exists(run / "ckpt-2.data-00000-of-00002")
