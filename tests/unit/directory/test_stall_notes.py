"""A job that gets nowhere, start after start, is told from one that is disturbed."""

from __future__ import annotations

import json
import os

import pytest

from distckpt.directory.stall_notes import comes_to_nothing
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from ..kit import lab


class Run:
    """A directory to which a job saves, and workers that end for want of another."""

    def __init__(self, directory):
        self.directory = directory
        self.storage = LocalStorage()

    def save(self, number):
        """A start of the job saves."""
        lab.Chief(self.directory, max_to_keep=9).save(f"ckpt-{number}", number)

    def ends(self, worker=0):
        return comes_to_nothing(self.storage, str(self.directory), worker)


@pytest.fixture
def job(tmp_path):
    return Run(tmp_path / "run")


def test_the_first_end_does_not_count_and_all_after_it_do(job):
    assert [job.ends(), job.ends(), job.ends()] == [False, True, True]


def test_a_commit_in_between_makes_it_a_first_end_again(job):
    assert not job.ends()
    job.save(1)
    assert [job.ends(), job.ends()] == [False, True]
    job.save(2)
    assert [job.ends(), job.ends()] == [False, True]


def test_the_same_name_saved_again_is_a_commit(job):
    job.save(1)
    assert not job.ends()
    job.save(1)
    assert not job.ends()


def test_a_checkpoint_that_goes_is_no_stand_still_for_ever(job):
    job.save(1)
    job.save(2)
    assert not job.ends()
    os.unlink(job.directory / "ckpt-2.manifest.json")
    os.unlink(job.directory / "ckpt-2.index")
    assert [job.ends(), job.ends()] == [False, True]


def test_each_worker_has_a_note_of_its_own_and_most_have_none(job):
    assert [job.ends(worker) for worker in range(4)] == [False] * 4
    assert sorted(os.listdir(job.directory / ".distckpt" / "stalled")) == [
        "worker-00000.json",
        "worker-00001.json",
    ]
    assert [job.ends(worker) for worker in range(4)] == [True, True, False, False]


NONSENSE = [b"", b"[]", b"{", b"null", b"[" * 9999, b'{"newest": 3}', b"\xff"]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_note_with_nonsense_in_it_is_none(job, nonsense):
    assert not job.ends()
    note = job.directory / ".distckpt" / "stalled" / "worker-00000.json"
    note.write_bytes(nonsense)
    assert not job.ends()
    assert json.loads(note.read_bytes())["newest"] == ""


@pytest.mark.parametrize("operation", ["make_directory", "freshen", "list", "read"])
def test_what_cannot_be_looked_at_is_not_judged(job, operation):
    job.save(1)
    assert not job.ends()
    job.storage = FaultyStorage(LocalStorage(), [Fault(fails(5), Where(operation), times=99)])
    with pytest.raises(OSError, match="Input/output error"):
        job.ends()


def test_a_directory_with_damage_is_judged_all_the_same(job):
    job.save(1)
    (job.directory / "ckpt-1.manifest.json").write_text("{")
    assert [job.ends(), job.ends()] == [False, True]


def test_nothing_is_written_through_a_link(job, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    job.directory.mkdir()
    (job.directory / ".distckpt").symlink_to(tmp_path / "elsewhere")
    assert [job.ends(), job.ends()] == [False, False]
    assert os.listdir(tmp_path / "elsewhere") == []
