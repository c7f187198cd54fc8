"""Trains in real processes, which are killed at random, again and again:

    python -m tests.reliability.soak --seconds 600

Each start has one to four workers, and some of them, or all, are killed at a random time. What is
restored must be what anybody knew to be saved, or newer, bit for bit. Exit code 1 if it is not.
"""

from __future__ import annotations

import dataclasses
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console

from .cluster import Cluster, Log, Lost, check_restart
from .worker import Job

FOR_EVER = 10**6


@dataclasses.dataclass
class Tally:
    """What a soak came to."""

    starts: int = 0
    killed: int = 0
    saved: int = 0


def soak(folder: Path, seconds: float, seed: int) -> Tally:
    """Kills and starts again for so many seconds.

    Raises:
      Lost: A promise was broken.
    """
    chance, tally = random.Random(seed), Tally()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tally.starts += 1
        workers = chance.randint(1, 4)
        job = Job(
            str(folder / "run"),
            str(folder / "board"),
            f"start-{tally.starts}",
            workers,
            FOR_EVER,
            in_background=chance.random() < 0.5,
        )
        logs, killed = _kill_some(job, chance)
        tally.killed += killed
        _check(job, logs, tally)
    tally.saved = check_restart(
        Job(str(folder / "run"), str(folder / "board"), "last", 2, tally.saved + 3, False),
        tally.saved,
    )
    return tally


def _kill_some(job: Job, chance: random.Random) -> tuple[list[Log], int]:
    """Runs a job for a while, then kills some of its workers, and in the end all."""
    with Cluster(job) as cluster:
        cluster.wait([0], until=lambda: cluster.logs()[0].restored is not None)
        time.sleep(chance.random() * 1.5)
        victims = chance.sample(range(job.workers), chance.randint(1, job.workers))
        for victim in victims:
            cluster.signal(victim, signal.SIGKILL)
            time.sleep(chance.choice([0.0, 0.0, 0.05]))
        if len(victims) < job.workers and chance.random() < 0.3:
            cluster.wait(list(range(job.workers)))  # they must find out for themselves
    killed = sum(process.exitcode == -signal.SIGKILL for process in cluster.processes)
    return cluster.logs(), killed


def _check(job: Job, logs: list[Log], tally: Tally) -> None:
    restored = {log.restored for log in logs if log.restored is not None}
    texts = "\n".join(log.text for log in logs)
    if not all(log.equal for log in logs) or len(restored) > 1:
        raise Lost(f"{job.run} restored {restored}:\n{texts}")
    if restored and min(restored) < tally.saved:
        raise Lost(f"{job.run} restored {restored}, saved was {tally.saved}:\n{texts}")
    tally.saved = max([tally.saved, *(log.saved for log in logs)])


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--seconds", default=600.0, show_default=True, help="For how long.")
@click.option("--seed", default=1, show_default=True, help="For the times and the victims.")
def main(seconds: float, seed: int) -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        try:
            tally = soak(Path(folder), seconds, seed)
        except Lost as error:
            console.print(f"LOST: {error}", markup=False, highlight=False)
            sys.exit(1)
    console.print(
        f"{tally.starts} starts, {tally.killed} processes killed, {tally.saved} steps saved, "
        "losses: 0"
    )


if __name__ == "__main__":
    main()
