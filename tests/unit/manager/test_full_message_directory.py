"""The workers exchange messages through a directory, and it cannot be written for a while."""

from __future__ import annotations

import errno

import pytest

from distckpt.coordination.shared_directory import SharedDirectory
from distckpt.errors import DeadlineExceededError, DirectoryError, StorageFullError, WorkerLostError
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from .programs import Job

ERRORS = {
    errno.ENOSPC: (StorageFullError, "no space left", "Free some space"),
    errno.EDQUOT: (StorageFullError, "no space left", "Free some space"),
    errno.EROFS: (DirectoryError, "cannot write", "Mount the file system for writing"),
}


class MessageDirectory:
    """Makes the coordinators of a job."""

    def __init__(self, directory, count):
        self._directory = directory
        self._count = count

    def coordinator(self, index):
        return SharedDirectory(str(self._directory), "run", index, self._count)


def run(tmp_path, victim, code, times):
    """Saves at four steps; at the second, the victim cannot publish `times` keys."""
    job = Job(
        2,
        tmp_path / "checkpoints",
        store=MessageDirectory(tmp_path / "messages", 2),
        options={"save_deadline": 3.0},
    )
    coordinators = [worker.manager._common.job.coordinator for worker in job.workers]

    def program(worker):
        for step in range(1, 5):
            worker.train()
            job.together()
            if worker.index == victim:
                full = Fault(fails(code), Where("create", "*/key.*"), times=times)
                faults = [full] if step == 2 else []
                coordinators[victim]._storage = FaultyStorage(LocalStorage(), faults)
            job.together()
            worker.save()
            job.together()

    job.run(program)
    for coordinator in coordinators:
        coordinator.close()
    return job


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("victim", [0, 1])
def test_who_cannot_publish_says_so_at_once_and_no_later_call_fails(tmp_path, victim, code):
    job = run(tmp_path, victim, code, times=1000)
    assert sorted(job.saved().values()) == [1, 3, 4]
    assert [worker.failed_steps for worker in job.workers] == [[2], [2]]
    kind, *texts = ERRORS[code]
    (error,) = job.workers[victim].errors
    assert isinstance(error, kind)
    for text in (f"worker {victim}", str(tmp_path / "messages" / "run"), *texts):
        assert text in str(error)
    (other,) = job.workers[1 - victim].errors  # it could not be told
    assert isinstance(other, DeadlineExceededError)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_hear_it_as_soon_as_a_key_can_be_published(tmp_path, victim):
    job = run(tmp_path, victim, errno.ENOSPC, times=1)
    assert sorted(job.saved().values()) == [1, 3, 4]
    for worker in job.workers:
        (error,) = worker.errors
        assert isinstance(error, StorageFullError)
        assert not isinstance(error, WorkerLostError)
        assert f"worker {victim}" in str(error)
