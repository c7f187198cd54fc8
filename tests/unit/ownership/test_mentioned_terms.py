"""A new term is above all terms that files and folders of a directory mention."""

from __future__ import annotations

import dataclasses
import errno

import pytest

from distckpt.core import manifest_json
from distckpt.errors import DirectoryError, SupersededError
from distckpt.storage import retrying_reader
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from ..kit import lab
from .owners import owner, plant, taken, terms


def test_what_was_copied_without_the_private_folder_is_older_than_what_comes(tmp_path):
    source = tmp_path / "source"
    for number in (1, 2, 3):
        lab.Chief(source).save("ckpt-1", number)
    (tmp_path / "copy").mkdir()
    for path in source.glob("ckpt-*"):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    copy = lab.Chief(tmp_path / "copy")
    copy.save("ckpt-2", 4)
    assert copy.ownership.term == 4
    (tmp_path / "copy" / "checkpoint").unlink()
    assert lab.restorable(tmp_path / "copy") == ("ckpt-2", 4)


def test_a_damaged_manifest_does_not_keep_anybody_from_taking_over(tmp_path):
    (tmp_path / "ckpt-1.manifest.json").write_bytes(b"{")
    (tmp_path / "ckpt-2.manifest.json").mkdir()
    process = owner(tmp_path)
    assert process.take()
    assert process.term == 1


def test_who_begins_stands_above_all_that_is_mentioned(tmp_path):
    """Also where there are terms: a copied checkpoint comes from a job with other terms."""
    lab.Chief(tmp_path).save("ckpt-1", 1)
    plant(tmp_path, "ckpt-2", 7)
    assert taken(tmp_path) == 8
    (tmp_path / "ckpt-3.pending-00000011-000001-abc").mkdir()
    assert taken(tmp_path) == 12
    (tmp_path / ".distckpt/abandoned/00000020-abc").mkdir(parents=True)
    assert taken(tmp_path) == 21
    (tmp_path / ".distckpt/abandoned/00000020-abc/ckpt-3.pending-00000030-000001-abc").mkdir()
    assert taken(tmp_path) == 31


def test_who_goes_on_stands_above_what_has_come_meanwhile(tmp_path):
    job = owner(tmp_path)
    job.take()
    assert not job.take()
    plant(tmp_path, "ckpt-1", 1)
    assert not job.take()
    plant(tmp_path, "ckpt-1", 5)
    assert job.take()
    assert job.term == 6
    plant(tmp_path, "ckpt-1", 9)  # it replaces the checkpoint of the known term
    assert job.take()
    assert job.term == 10


def test_a_manifest_that_cannot_be_read_keeps_nobody_waiting_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(retrying_reader, "PATIENCE", 0.0)
    plant(tmp_path, "ckpt-1", 5)
    fault = Fault(fails(errno.EIO), Where("read", "*/ckpt-1.manifest.json"), times=99)
    storage = FaultyStorage(LocalStorage(), [fault])
    job = owner(tmp_path, storage)
    assert job.take()
    assert job.term == 1
    storage.forget_faults()
    assert job.take()
    assert job.term == 6


def test_a_successor_that_has_just_come_is_not_taken_for_what_was_copied(tmp_path):
    """Its pending folder and what it commits have a higher term."""
    storage = FaultyStorage(LocalStorage())
    job, successor = owner(tmp_path, storage), owner(tmp_path)
    job.take()

    def come(storage, operation):
        if successor.take():
            successor.enter("ckpt-1.pending-00000002-000001-abc")

    storage.add(Fault(come, Where("freshen", str(tmp_path))))
    with pytest.raises(SupersededError):
        job.take()
    successor.check()


@pytest.mark.parametrize("found", ["terms/999999999999999999.json", "a manifest"])
def test_who_can_take_no_higher_term_says_so(tmp_path, found):
    """Otherwise nobody could read the next term's file, which would block the directory."""
    lab.Chief(tmp_path).save("ckpt-1", 1)
    if found == "a manifest":
        (tmp_path / ".distckpt/terms/00000001.json").unlink()
        path = tmp_path / "ckpt-1.manifest.json"
        manifest = manifest_json.parse(path.read_bytes())
        path.write_bytes(manifest_json.render(dataclasses.replace(manifest, term=10**18 - 1)))
    else:
        (tmp_path / ".distckpt" / found).write_bytes(b"")
    before = terms(tmp_path)
    for _ in range(2):
        with pytest.raises(DirectoryError, match="term 999999999999999999, the highest"):
            owner(tmp_path).take()
    assert terms(tmp_path) == before
