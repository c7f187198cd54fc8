"""How often a save lists the directory, which may hold a hundred thousand foreign files."""

from __future__ import annotations

import collections

import pytest

from ..kit import lab
from ..kit.bundles import values


class Recording(lab.FastStorage):
    """Counts the listings of each folder."""

    def __init__(self):
        super().__init__()
        self.listed = collections.Counter()

    def list(self, directory):
        self.listed[directory] += 1
        return super().list(directory)


class Job:
    def __init__(self, directory, workers):
        self.directory, self.workers = str(directory), workers
        self.storage = Recording()
        self.others = [Recording() for _ in range(workers - 1)]
        self.chief = lab.Chief(directory, self.storage, max_to_keep=2)

    def save(self, name, number):
        """Returns how often the chief, and all others, have listed the directory in a save."""
        for storage in (self.storage, *self.others):
            storage.listed.clear()
        self.chief.save(name, number, self.workers, others=self.others)
        assert lab.same(lab.read_back(self.directory, name), values(number))
        return self.listed(self.storage), sum(map(self.listed, self.others))

    def listed(self, storage):
        return storage.listed[self.directory]

    def pending(self, storage):
        return sum(n for folder, n in storage.listed.items() if ".pending-" in folder)


@pytest.fixture(params=[1, 3], ids="{} workers".format)
def job(tmp_path, request):
    return Job(tmp_path, request.param)


def test_a_save_that_deletes_another_checkpoint_lists_the_directory_twice(job):
    for number in range(1, 4):
        job.save(f"ckpt-{number}", number)
    # Whether a higher term has come; which names the files must not get.
    assert job.save("ckpt-4", 4) == (2, 0)
    assert sorted(kept.name for kept in job.chief.managed.active) == ["ckpt-3", "ckpt-4"]


def test_the_first_save_and_one_after_a_failed_commit_list_it_more_often(job):
    assert job.save("ckpt-1", 1) == (5, 0)
    job.save("ckpt-2", 2)
    job.chief.committer._settled = None  # as after an error in a commit
    assert job.save("ckpt-3", 3) == (4, 0)


def test_a_save_that_replaces_a_checkpoint_lists_it_twice_more(job):
    for number in range(1, 3):
        job.save(f"ckpt-{number}", number)
    assert job.save("ckpt-2", 7) == (4, 0)


def test_only_the_chief_lists_the_pending_folder_and_only_once(job):
    job.save("ckpt-1", 1)
    job.save("ckpt-2", 2)
    assert job.pending(job.storage) == 1
    assert sum(map(job.pending, job.others)) == 0


def test_what_was_left_of_a_failed_save_is_looked_for_again_and_drops_off_the_list(job):
    for number in range(1, 4):
        job.save(f"ckpt-{number}", number)
    folder = job.chief.ownership.held_term.next_attempt()
    job.storage.make_directory(f"{job.directory}/ckpt-9.pending-{folder}")
    chief, _ = job.save("ckpt-4", 4)
    assert chief == 3  # again after the cleanup
    assert not [p for p in job.storage.list(job.directory) if ".pending-" in p]


def test_files_that_no_manifest_claims_are_deleted_with_their_checkpoint(job):
    for number in range(1, 4):
        job.save(f"ckpt-{number}", number)
    stray = f"{job.directory}/ckpt-2.data-00004-of-00009"
    job.storage.write(stray, b"stray", durable=False)
    assert job.save("ckpt-4", 4) == (2, 0)
    assert not job.storage.exists(stray)
