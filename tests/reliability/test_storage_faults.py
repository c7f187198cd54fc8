"""Disks that are full, read-only or limited, for real: one clear error, and the last one stands."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

import pytest

from .cluster import Cluster, check_restart
from .worker import Job

pytestmark = pytest.mark.cluster


@functools.cache
def namespace() -> tuple[str, ...]:
    """Returns how to run a program that may mount disks; empty if this machine does not let us."""
    if shutil.which("unshare") is None:
        return ()
    ways = (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount"))
    for way in ways[os.geteuid() != 0 :]:
        trial = [*way, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if subprocess.run(trial, capture_output=True).returncode == 0:
            return way
    return ()


@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_small_disk(tmp_path, what):
    if not namespace():
        pytest.skip("needs the right to mount a disk in a namespace of its own")
    program = [*namespace(), sys.executable, "-m", "tests.reliability.small_disk"]
    done = subprocess.run(
        [*program, str(tmp_path), what], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "restored" in done.stdout


def test_a_limit_on_the_size_of_files(tmp_path):
    directory, board = str(tmp_path / "run"), str(tmp_path / "board")
    with Cluster(Job(directory, board, "first", 2, 2, False)) as cluster:
        cluster.wait([0, 1])
        assert [p.exitcode for p in cluster.processes] == [0, 0], cluster.logs()
    limited = Job(directory, board, "limited", 2, 5, False, file_limit=40_000)
    with Cluster(limited) as cluster:
        cluster.wait([0, 1])
        logs = cluster.logs()
    assert {log.raised for log in logs} == {"SaveFailedError"}, logs
    for log in logs:
        assert "File too large" in log.text
        assert "The last checkpoint is untouched" in log.text
    assert check_restart(Job(directory, board, "last", 2, 5, False), 2) == 2
