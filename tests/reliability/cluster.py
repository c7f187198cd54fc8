"""Runs small jobs in real processes, forked from one with TensorFlow; reads their logs."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from distckpt.core import listings

from . import worker
from .worker import Job

# Seconds in which every call must have ended, whatever has struck: a restore, then a save.
PATIENCE = 60.0

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_context = multiprocessing.get_context("forkserver")


class Lost(AssertionError):
    """The promise is broken."""


@dataclasses.dataclass(frozen=True)
class Log:
    """What one worker's log says.

    Attributes:
      saved: The newest step that it knows to be saved.
      restored: The step that it has restored, or None.
      equal: Whether that was bit for bit what it should be.
      raised: The error with which it has ended, or "".
      text: All of it.
    """

    saved: int
    restored: int | None
    equal: bool
    raised: str
    text: str


def read_log(job: Job, index: int) -> Log:
    """Returns what a worker has logged so far."""
    path = Path(job.log(index))
    text = path.read_text() if path.exists() else ""
    words = [line.split() for line in text.splitlines() if line.strip()]
    saved = [int(w[1]) for w in words if w[0] == "saved" and len(w) == 2]
    restored = [w for w in words if w[0] == "restored" and len(w) == 3]
    raised = [w[1] for w in words if w[0] == "raised"]
    return Log(
        max(saved, default=0),
        int(restored[-1][1]) if restored else None,
        all(w[2] == "equal" for w in restored),
        raised[-1] if raised else "",
        text,
    )


class Cluster:
    """The processes of one job; a context manager that leaves none behind.

    Args:
      job: The job.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.processes: list[ForkServerProcess] = []

    def __enter__(self) -> Cluster:
        Path(self.job.board).mkdir(parents=True, exist_ok=True)
        for index in range(self.job.workers):
            _context.set_forkserver_preload(["tests.reliability.worker"])
            process = _context.Process(target=worker.main, args=(self.job, index), daemon=True)
            process.start()
            self.processes.append(process)
        return self

    def __exit__(self, *unused: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def signal(self, index: int, number: int) -> None:
        """Sends a signal to a worker that may have ended."""
        process = self.processes[index]
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, number)

    def wait(self, indices: list[int], until: Callable[[], bool] = lambda: False) -> None:
        """Waits until those workers have ended, or until something is so.

        Raises:
          Lost: They take too long.
        """
        end = time.monotonic() + PATIENCE
        while any(self.processes[i].exitcode is None for i in indices) and not until():
            if time.monotonic() > end:
                texts = "\n".join(read_log(self.job, i).text for i in indices)
                raise Lost(f"still running after {PATIENCE:g} s:\n{texts}")
            time.sleep(0.02)

    def is_stopped(self, index: int) -> bool:
        """Whether a worker has been stopped by SIGSTOP."""
        try:
            stat = Path(f"/proc/{self.processes[index].pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    def logs(self) -> list[Log]:
        """Returns all logs."""
        return [read_log(self.job, index) for index in range(self.job.workers)]


def go_on(index: int, cluster: Cluster) -> None:
    """Lets a stopped worker go on."""
    cluster.signal(index, signal.SIGCONT)


def check_restart(job: Job, saved: int) -> int:
    """Starts a job without faults, which restores and saves two steps more.

    Args:
      job: The job.
      saved: The newest step that anybody knew to be saved.

    Returns:
      The step that was restored.

    Raises:
      Lost: It is older, or differs in a bit, or something is left over in the directory.
    """
    with Cluster(job) as cluster:
        cluster.wait(list(range(job.workers)))
        logs = cluster.logs()
        codes = [process.exitcode for process in cluster.processes]
    texts = "\n".join(log.text for log in logs)
    if any(codes):
        raise Lost(f"the restart failed with {codes}:\n{texts}")
    restored = {log.restored for log in logs}
    if len(restored) != 1 or not all(log.equal for log in logs):
        raise Lost(f"restored {restored}:\n{texts}")
    step = restored.pop()
    if step is None or step < saved:
        raise Lost(f"saved was {saved}, restored is {step}:\n{texts}")
    left = leftovers(Path(job.directory))
    if left:
        raise Lost(f"left over: {left}")
    return step


def leftovers(directory: Path) -> list[str]:
    """Returns the names of pending folders, abandoned ones and temporary files."""
    pending = [p.folder for p in listings.classify(p.name for p in directory.iterdir()).pending]
    abandoned = [str(p) for p in (directory / ".distckpt").rglob("abandoned/*")]
    return pending + abandoned + [str(p) for p in directory.rglob("*.tmp")]
