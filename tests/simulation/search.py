"""Plays many runs, on all processors, and sums up."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from .bugs import FOCUS, fits, with_bug
from .run import Result, play

# Runs that one process plays before it reports.
BATCH = 250


@dataclasses.dataclass
class Summary:
    """What many runs came to.

    Attributes:
      runs: How many.
      commits: Checkpoints committed in them.
      struck: Faults that struck, by kind.
      visited: Transitions of the protocol, by how often they were taken.
      broken: (seed, what was broken).
    """

    runs: int = 0
    commits: int = 0
    struck: Counter[str] = dataclasses.field(default_factory=Counter)
    visited: Counter[tuple[str, str, str]] = dataclasses.field(default_factory=Counter)
    broken: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add(self, seed: str, result: Result) -> None:
        """Adds a run."""
        self.runs += 1
        self.commits += result.commits
        self.struck.update(result.struck)
        self.visited.update(result.visited)
        if result.violation is not None:
            self.broken.append((seed, result.violation))

    def merge(self, other: Summary) -> None:
        """Adds other runs."""
        self.runs += other.runs
        self.commits += other.commits
        self.struck.update(other.struck)
        self.visited.update(other.visited)
        self.broken += other.broken


def seed_of(base: int | str, number: int) -> str:
    """Returns the seed of run `number` of the series `base`; "p1" is one of programs."""
    return f"{base}.{number}"


def play_many(base: int | str, first: int, count: int, bug: str | None = None) -> Summary:
    """Plays `count` runs of a series, in this process; with a bug only until it shows."""
    summary = Summary()
    focus = FOCUS.get(bug or "")
    gc.collect()
    gc.disable()  # the worlds are full of cycles, and are all thrown away at the end
    try:
        with with_bug(bug):
            for number in range(first, first + count):
                seed = seed_of(base, number)
                summary.add(seed, play(seed, focus=focus))
                if bug and summary.broken:
                    assert fits(summary.broken[0][1]), f"{bug}, seed {seed}: {summary.broken[0]}"
                    break
    finally:
        gc.enable()
    return summary


def play_all(
    base: int | str, runs: int, processes: int | None = None, *, first: int = 0
) -> Iterator[Summary]:
    """Plays runs of a series, from `first` on, on all processors; yields a summary now and then.

    An interrupt ends it after the batches that are being played.
    """
    end = first + runs
    todo = [(base, begin, min(BATCH, end - begin)) for begin in range(first, end, BATCH)]
    pool = ProcessPoolExecutor(
        processes or os.cpu_count(),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupts_to_the_parent,
    )
    try:
        for done in as_completed([pool.submit(_play_batch, *batch) for batch in todo]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _play_batch(base: int | str, first: int, count: int) -> Summary:
    """Plays in a process of its own, which need not look again through all that it remembers."""
    summary = play_many(base, first, count)
    gc.collect()
    gc.freeze()
    return summary


def find(bug: str, base: int | str, limit: int) -> tuple[str, str, int] | None:
    """Returns (seed, what was broken, how many runs it took) for a bug; None if nothing was."""
    played = 0
    while played < limit:
        summary = play_many(base, played, min(BATCH, limit - played), bug)
        played += summary.runs
        if summary.broken:
            return (*summary.broken[0], played)
    return None
