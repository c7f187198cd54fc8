"""Measures what it costs to compare the workers' copies at each save (``check_replicas``).

    python tests/benchmarks/replica_check.py --workers 2 --rounds 5

It starts a MultiWorkerMirroredStrategy of real processes, which save round by round, in each round
once in every way, in random order: without the comparison, with all of it, and with samples. The
files are not flushed, so that the disk does not hide the difference.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import disk
import report
from workers import WorkerFailedError, Workers

EVERY = (0, 1, 4, 16)  # 0: nothing is compared
NAMES = {0: "off", 1: "all", 4: "1 in 4", 16: "1 in 16"}


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="how many")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count; one warms up")
    parser.add_argument("--megabytes", type=int, default=512, help="size of the big state, in MiB")
    parser.add_argument("--variables", type=int, default=10000, help="of the small state")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="replica-check-"))
    print(report.describe_machine(report.machine(scratch)), flush=True)
    print("\n| State | Compared | save, seconds | of a save without |")
    print("|---|---|---|---|")
    try:
        for state in ("big", "small"):
            for line in _run(state, scratch, options):
                print(line, flush=True)
    except WorkerFailedError as error:
        report.complain(f"Failed: {error}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _run(state: str, scratch: Path, options: argparse.Namespace) -> list[str]:
    with Workers(options.workers) as workers:
        nbytes = workers.call(
            "prepare_checks",
            timeout=600.0,
            directory=str(scratch / state),
            state=state,
            megabytes=options.megabytes,
            variables=options.variables,
            every=list(EVERY),
        )[0]
        rounds = []
        for number in range(options.rounds + 1):
            order = random.sample(EVERY, len(EVERY))
            rounds.append({every: _seconds(workers, every) for every in order})
            report.complain(f"  {state}, round {number}: {rounds[-1]}")
    counted = rounds[1:]
    return [_line(state, nbytes, every, counted) for every in EVERY]


def _seconds(workers: Workers, every: int) -> float:
    disk.settle()
    saves: list[dict[str, Any]] = workers.call(
        "save", way=str(every), start_at=time.monotonic() + 0.05
    )
    return max(s["ended"] for s in saves) - min(s["started"] for s in saves)


def _line(state: str, nbytes: int, every: int, rounds: list[dict[int, float]]) -> str:
    seconds = sorted(r[every] for r in rounds)
    ratios = sorted(r[every] / r[0] for r in rounds)
    size = f"{nbytes / 2**20:.1f} MiB"
    figures = f"{report.spread(seconds, 3)} | {report.spread(ratios, 2)}"
    return f"| {state}, {size} | {NAMES[every]} | {figures} |"


if __name__ == "__main__":
    sys.exit(main())
