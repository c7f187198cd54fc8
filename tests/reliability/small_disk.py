"""A small disk that fills up, or turns read-only, under a job of two workers. Run by its test:

    unshare --mount python -m tests.reliability.small_disk FOLDER full

In a mount namespace of its own, so that nobody else sees the disk. Prints what each worker's log
says, and ends with 0 if the last checkpoint stood and the next save succeeded.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from .cluster import Cluster, check_restart
from .worker import Job

SIZE = 900 * 1024
FOR_EVER = 10**6


def main(folder: Path, what: str) -> None:
    """Lets it happen."""
    run = folder / "run"
    run.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", run], check=True)
    try:
        first = Job(str(run), str(folder / "board"), "first", 2, 3, False)
        with Cluster(first) as cluster:
            cluster.wait([0, 1])
            assert [p.exitcode for p in cluster.processes] == [0, 0], cluster.logs()
        saved = fill_up(folder, run) if what == "full" else turn_read_only(folder, run)
        step = check_restart(
            Job(str(run), str(folder / "board"), "last", 2, saved + 3, False), saved
        )
        print("restored", step, "saved", saved)
    finally:
        subprocess.run(["umount", "--lazy", run], check=False)


def fill_up(folder: Path, run: Path) -> int:
    """Somebody else's file leaves too little space for a checkpoint; then it goes."""
    ballast = run / "somebody-elses-file"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            file.truncate(file.tell() - 64 * 1024)
    with Cluster(Job(str(run), str(folder / "board"), "full", 2, 6, False)) as cluster:
        cluster.wait([0, 1])
        logs = cluster.logs()
    ballast.unlink()
    for log in logs:
        print(log.text)
        assert log.raised == "StorageFullError", log.text
        assert "no space left" in log.text
    return 3


def turn_read_only(folder: Path, run: Path) -> int:
    """The disk turns read-only while the job saves, as one does that has errors."""
    job = Job(str(run), str(folder / "board"), "read-only", 2, FOR_EVER, False)
    with Cluster(job) as cluster:
        cluster.wait([0, 1], until=lambda: cluster.logs()[0].saved >= 6)
        end = time.monotonic() + 30.0
        while subprocess.run(
            ["mount", "-o", "remount,ro", run], stderr=subprocess.DEVNULL
        ).returncode:
            assert time.monotonic() < end, "the disk is never idle"
        cluster.wait([0, 1])
        logs = cluster.logs()
    subprocess.run(["mount", "-o", "remount,rw", run], check=True)
    for log in logs:
        print("\n".join(log.text.splitlines()[-20:]))
        assert log.raised in ("SaveFailedError", "DirectoryError"), log.text
        assert "Read-only file system" in log.text
    assert len({log.raised for log in logs}) == 1
    return max(log.saved for log in logs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
