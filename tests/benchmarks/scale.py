"""Measures the planner and the commit with up to 4,096 workers and 10,000 entries.

    python tests/benchmarks/scale.py

The protocol, the committer and the directory are the real ones; no TensorFlow is needed. The
key-value store is in-process and, like TensorFlow's, can wait for one key at a time. Worker 1 runs
the real session, too; what the others would write and report is made by one thread, one after the
other, since 4,096 threads on a few cores would measure only each other. Their data files have the
right sizes and nothing in them.

The chief's work is the processor time of its thread, from the opening to the last word: it takes
the reports, compares them with the plan, merges and commits. The merge is in Python; a real chief
lets TensorFlow do it. "Waiting" is the processor time of the threads that wait for answers. Calls,
threads and characters are those of the store, without the entry in the log of calls, of which each
worker reads one, and without messages of progress, which only slow saves have. Calls "in vain" were
given up; those of the other workers are not counted.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scale_workers import Chief, Crew, Worker, entries_of, rejoin

from distckpt.core.protocol.write_plan import make_plan

WORKERS = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
ENTRIES = [1250, 2500, 5000, 10000]
AT_WORKERS = 256  # at which the growth with the entries is measured
# What is expected of the largest case: (column, most, unit).
EXPECTED = (
    ("plan", 1.0, "s"),
    ("commit", 2.0, "s"),
    ("manifest", 10e6, "bytes"),
    ("threads", 8, "threads"),
    ("worker_calls", 6, "calls"),
    ("worker_names", 0, "names"),
)
# What may grow with the workers, at the most like their number.
GROWING = ("plan", "commit", "waiting", "calls", "received", "manifest")


def measure(workers: Sequence[int], entries: int, rounds: int = 3) -> list[dict[str, Any]]:
    """Returns the medians of some rounds for each number of workers."""
    return [_median([_once(count, entries) for _ in range(rounds)]) for count in workers]


def growth(rows: Sequence[dict[str, Any]], over: str, column: str) -> float:
    """Returns b of column = a * over**b, fitted to the upper half of `rows`: 1 is linear."""
    upper = rows[len(rows) // 2 - 1 :] if len(rows) > 2 else rows
    x = [math.log(row[over]) for row in upper]
    y = [math.log(row[column]) for row in upper]
    return statistics.linear_regression(x, y).slope


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| Workers | Entries | Plan | Fingerprint | Chief's work per commit | Waiting "
        "| Chief's calls | In vain | Threads | Received | Calls of each other worker "
        "| Manifest | Reports |",
        "|" + "---|" * 13,
    ]
    for row in rows:
        lines.append(
            f"| {row['workers']:,} | {row['entries']:,} | {1000 * row['plan']:.0f} ms "
            f"| {1000 * row['fingerprint']:.0f} ms | {1000 * row['commit']:.0f} ms "
            f"| {1000 * row['waiting']:.0f} ms | {row['calls']:,.0f} | {row['in_vain']:,.0f} "
            f"| {row['threads']:.0f} | {row['received'] / 1e6:.2f} MB "
            f"| {row['worker_calls']:.0f} "
            f"| {row['manifest'] / 1e6:.2f} MB | {row['reports'] / 1e6:.2f} MB |"
        )
    return "\n".join(lines)


def findings(by_workers: Sequence[dict[str, Any]], by_entries: Sequence[dict[str, Any]]) -> str:
    """Returns what was expected of the largest case, and of the growth, and what was found."""
    last = by_workers[-1]
    lines = [f"At {last['workers']:,} workers and {last['entries']:,} entries:", ""]
    for column, most, unit in EXPECTED:
        verdict = "met" if last[column] <= most else "NOT met"
        lines.append(f"- {column}: {last[column]:.3g} {unit}, expected <= {most:g}: {verdict}")
    lines += ["", "Growth (the power of the number; 1 is linear), expected <= 1:", ""]
    by_both = (("workers", by_workers, GROWING), ("entries", by_entries, GROWING[:2]))
    for over, rows, columns in by_both:
        for column in columns:
            power = growth(rows, over, column)
            verdict = "met" if power <= 1.1 else "NOT met"
            lines.append(f"- {column} with {over}: {power:.2f}: {verdict}")
    return "\n".join(lines)


def _once(workers: int, count: int) -> dict[str, Any]:
    entries = entries_of(count)
    began = time.process_time()
    plan = make_plan(entries, workers)
    planned = time.process_time()
    fingerprint = plan.fingerprint
    hashed = time.process_time()
    assert fingerprint
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        chief = Chief(folder, plan)
        crew = Crew(folder, plan, chief.service)
        worker = Worker(folder, plan, chief.service)
        threads = [threading.Thread(target=run) for run in (crew.work, worker.save)]
        for thread in threads:
            thread.start()
        chief.save()
        rejoin(threads)
        manifest = (folder / "ckpt-1.manifest.json").stat().st_size
    finally:
        shutil.rmtree(folder)
    return {
        "workers": workers,
        "entries": count,
        "plan": planned - began,
        "fingerprint": hashed - planned,
        "commit": chief.seconds,
        "waiting": chief.coordinator.waiting,
        "calls": chief.service.calls[0],
        "in_vain": chief.service.given_up[0],
        "threads": chief.coordinator.crew.most,
        "received": chief.service.sent[0],
        "worker_calls": chief.service.calls[1] - chief.service.given_up[1],
        "worker_names": worker.storage.names,
        "manifest": manifest,
        "reports": crew.report_bytes,
        "actions": chief.actions,
    }


def _median(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    numbers = {k: statistics.median(r[k] for r in rows) for k in rows[0] if k != "actions"}
    names = rows[0]["actions"]
    actions = {n: statistics.median(r["actions"].get(n, 0.0) for r in rows) for n in names}
    return {**numbers, "actions": actions}


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is taken")
    parser.add_argument("--most", type=int, default=WORKERS[-1], help="up to so many workers")
    options = parser.parse_args()
    workers = [count for count in WORKERS if count <= options.most] or [options.most]
    by_workers = measure(workers, ENTRIES[-1], options.rounds)
    by_entries = [
        measure([min(AT_WORKERS, options.most)], count, options.rounds)[0] for count in ENTRIES
    ]
    print(table([*by_workers, *by_entries[:-1]]) + "\n")
    for name, seconds in sorted(by_workers[-1]["actions"].items(), key=lambda item: -item[1]):
        print(f"  {name:16} {1000 * seconds:8.1f} ms of the chief's, with the most workers")
    print("\n" + findings(by_workers, by_entries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
