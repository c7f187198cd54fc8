"""A directory that others use, too: a second job, readers, people with other rights."""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from pathlib import Path

import pytest

from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError
from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import WRITING, FaultyStorage

from .cluster import Cluster, check_restart
from .worker import Job

pytestmark = pytest.mark.cluster
FOR_EVER = 10**6


class Reader:
    """Lists and verifies, as somebody does who watches the training."""

    def __init__(self, directory: str) -> None:
        self._storage = FaultyStorage(LocalStorage())
        self._directory = directory
        self.verified = 0

    def look(self) -> None:
        for name in Catalog(self._storage, self._directory).candidates(time.time()):
            try:
                Verifier(self._storage, self._directory, threads=1).verify(name)
                self.verified += 1
            except CheckpointDamagedError:
                continue  # deleted, or saved again, while it was being read

    @property
    def wrote(self) -> bool:
        return any(operation.kind in WRITING for operation in self._storage.operations)


def test_a_second_job_takes_over_and_the_first_says_from_whom(tmp_path):
    directory, board = str(tmp_path / "run"), str(tmp_path / "board")
    reader = Reader(directory)
    # Slow enough for the second to restore a checkpoint before the first deletes it.
    schedule = {"step_seconds": 1.0}
    with Cluster(Job(directory, board, "first", 2, FOR_EVER, False, **schedule)) as first:
        first.wait([0, 1], until=lambda: first.logs()[0].saved >= 2)
        with Cluster(Job(directory, board, "second", 2, FOR_EVER, False, **schedule)) as second:
            first.wait([0, 1], until=lambda: reader.look() or False)
            begun = max(log.saved for log in second.logs())
            second.wait([0, 1], until=lambda: second.logs()[0].saved >= begun + 3)
            assert [p.exitcode for p in second.processes] == [None, None], second.logs()
            chief = second.processes[0].pid
        saved = max(log.saved for log in second.logs())
        ended = first.logs()
    assert ended[0].raised == "SupersededError", ended[0].text
    assert ended[1].raised in ("SupersededError", "WorkerLostError"), ended[1].text
    says = rf"taken over by {re.escape(socket.gethostname())} \(pid {chief}, term 2\) at \d+-.* UTC"
    assert re.search(says, ended[0].text), ended[0].text
    assert reader.verified > 0
    assert not reader.wrote
    check_restart(Job(directory, board, "last", 2, saved + 3, False), saved)


@pytest.mark.parametrize("umask", [0o027, 0o002])
def test_everything_has_the_rights_that_the_umask_gives(tmp_path, umask):
    directory = tmp_path / "run"
    job = Job(str(directory), str(tmp_path / "board"), "one", 2, 3, False, umask=umask)
    with Cluster(job) as cluster:
        cluster.wait([0, 1])
        assert [p.exitcode for p in cluster.processes] == [0, 0], cluster.logs()
    for path in [directory, *directory.rglob("*")]:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(os.lstat(path).st_mode) == expected, path


def test_links_that_lead_out_are_not_followed_when_things_are_deleted(tmp_path):
    """A link among the checkpoints, in a pending folder, and in place of one."""
    directory, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    first = Job(str(directory), str(tmp_path / "board"), "first", 1, 2, False)
    with Cluster(first) as cluster:
        cluster.wait([0])
    pending = directory / "ckpt-9.pending-00000001-000009-abc"
    pending.mkdir()
    (pending / "link").symlink_to(outside)
    (directory / "ckpt-8.pending-00000001-000008-abc").symlink_to(outside)
    data = next(directory.glob("ckpt-1.data-*"))
    data.rename(outside / "data")
    Path(data).symlink_to(outside / "data")
    last = Job(str(directory), str(tmp_path / "board"), "last", 2, 5, False)
    assert check_restart(last, 2) == 2
    assert sorted(p.name for p in outside.iterdir()) == ["data", "precious"]
    assert not os.path.lexists(data)
