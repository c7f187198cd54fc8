"""One cell of the matrix: a fault strikes one worker at one step of its second save."""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

from distckpt.saving.fault_points import FAULTS, MOMENTS, FaultPoint

from .cluster import Cluster, Lost, check_restart, go_on
from .worker import DEADLINE, FAILED, LOST_AFTER, Job

WORKERS = 3
STRIKES_SAVE = 3
# The steps of a save that succeeds, without a collective.
CHIEF = ("SendReady", "Open", "AnnounceOpening", "Write", "AwaitAnswer", "Merge", "Commit")
CHIEF += ("Tell", "Prune", "Finish")
WORKER = ("SendReady", "AwaitOpening", "Write", "SendAnswer", "AwaitOutcome", "Finish")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A fault at a step, in one mode."""

    point: FaultPoint
    in_background: bool

    @property
    def role(self) -> str:
        """Whom it strikes."""
        return "chief" if self.point.worker == 0 else "worker"

    @property
    def mode(self) -> str:
        """How the job saves."""
        return "async" if self.in_background else "sync"

    def __str__(self) -> str:
        p = self.point
        return f"{self.role}-{p.step}-{p.moment}-{p.fault}-{self.mode}"


def all_cells() -> Iterator[Cell]:
    """Yields the whole matrix."""
    for worker, names in ((0, CHIEF), (1, WORKER)):
        for step, moment, fault, background in itertools.product(
            names, MOMENTS, FAULTS, (False, True)
        ):
            yield Cell(FaultPoint(worker, step, moment, STRIKES_SAVE, fault), background)


def spread() -> list[Cell]:
    """Returns cells such that every step, and every fault and mode, of each role is among them."""
    chosen = []
    for worker, names in ((0, CHIEF), (1, WORKER)):
        for number, step in enumerate(names):
            fault = FAULTS[(number + worker) % len(FAULTS)]
            moment = MOMENTS[(number // len(FAULTS) + worker) % 2]
            chosen.append(
                Cell(FaultPoint(worker, step, moment, STRIKES_SAVE, fault), number % 2 == 1)
            )
    return chosen


def _has_trace(text: str) -> bool:
    """Whether a worker's log has the traceback of another one's error."""
    if not hasattr(BaseException, "add_note"):  # Python 3.10 prints no notes
        return True
    return "On worker" in text and "fault_points.Struck: fault point" in text


def _was_committed_after_all(cell: Cell, text: str) -> bool:
    """Whether an error in the background hit a worker whose save was committed: nobody hears it."""
    return cell.in_background and cell.point.fault == "raise" and "fault point: " in text


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
      saved: The newest step that a worker knew to be saved.
      restored: What the restart has restored.
      ends: How each worker has ended.
    """

    saved: int
    restored: int
    ends: tuple[str, ...]


def play(cell: Cell, folder: Path) -> Outcome:
    """Plays a cell in an empty folder.

    Raises:
      Lost: A promise was broken.
    """
    victim = cell.point.worker
    directory, board = str(folder / "run"), str(folder / "board")
    job = Job(directory, board, "struck", WORKERS, 5, cell.in_background, str(cell.point))
    with Cluster(job) as cluster:
        others = [i for i in range(WORKERS) if i != victim]
        if cell.point.fault == "stop":
            cluster.wait([victim], until=lambda: cluster.is_stopped(victim))
            if not cluster.is_stopped(victim):
                raise Lost(f"nothing has struck: {cluster.logs()[victim].text}")
            time.sleep(max(DEADLINE, LOST_AFTER) + 1.0)
            go_on(victim, cluster)
        cluster.wait(list(range(WORKERS)))
        codes = [process.exitcode for process in cluster.processes]
        logs = cluster.logs()
    if cell.point.fault == "stop":
        if codes[victim] not in (0, FAILED):
            raise Lost(f"it came back and died with {codes[victim]}: {logs[victim].text}")
    elif codes[victim] == 0 and not _was_committed_after_all(cell, logs[victim].text):
        raise Lost(f"nothing has struck: {logs[victim].text}")
    for index in others:
        blamed = re.sub(r"[^;:\n]* ha(?:s|ve) done (?:its|their) part", "", logs[index].text)
        if logs[index].raised and f"worker {victim}" not in blamed:
            raise Lost(f"worker {index} does not name worker {victim}:\n{logs[index].text}")
        told = logs[index].raised in ("SaveFailedError", "CommitUnknownError")
        if cell.point.fault == "raise" and told and not _has_trace(logs[index].text):
            raise Lost(f"worker {index} does not say where it was raised:\n{logs[index].text}")
    saved = max(log.saved for log in logs)
    after = Job(directory, board, "restart", 2, saved + 3, cell.in_background)
    restored = check_restart(after, saved)
    ends = tuple(log.raised or ("finished" if "finished" in log.text else "died") for log in logs)
    return Outcome(saved, restored, ends)
