"""Measures how fast a checkpoint is restored, and the memory that this takes.

    python tests/benchmarks/restoring.py --megabytes 1024 --rounds 5

Two states: a few large variables, and many small ones. Round by round, in random order, one process
restores each of them, from the page cache: with ``tf.train.Checkpoint.restore``; with distckpt's
restore alone; with ``restore_or_initialize()``, which also verifies every byte. The floor reads the
data files in chunks of 1 MiB and copies each to fresh memory. The tables have medians, and ratios
within a round to the floor and to TensorFlow. The last table shows peak memory: a new process
restores the large variables in one way; what it had before, and the size of the variables, are
subtracted.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
import tensorflow as tf
from arguments import parser_for_rounds, positive
from summary import Figure, Finding

import distckpt
from distckpt.state.loading.restore import restore

MIB = 1 << 20
CHUNK = MIB
FLOOR, TENSORFLOW, DIRECT, WHOLE = (
    "read and copy",
    "TensorFlow's restore",
    "distckpt's restore",
    "restore_or_initialize()",
)
WAYS = (FLOOR, TENSORFLOW, DIRECT, WHOLE)


class Sample(NamedTuple):
    """What restoring once took, in seconds."""

    wall: float
    cpu: float


class State(NamedTuple):
    """A state to restore.

    Attributes:
      title: What it is.
      count: How many variables it has.
      elements: How many floats each has.
    """

    title: str
    count: int
    elements: int

    @property
    def size(self) -> int:
        """The bytes of all variables."""
        return 4 * self.count * self.elements

    def make(self) -> tf.train.Checkpoint:
        """Returns the program's state."""
        values = (tf.fill((self.elements,), float(n)) for n in range(self.count))
        return tf.train.Checkpoint(weights=[tf.Variable(value) for value in values])


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    large = State(
        f"{options.megabytes} MiB in {options.variables} variables",
        options.variables,
        options.megabytes * MIB // 4 // options.variables,
    )
    if options.way:
        print(_peak(large, options.directory, options.way))
        return 0
    small = State(f"{options.small} variables of 10 floats", options.small, 10)
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="restoring-", dir=options.directory))
    print(report.describe_machine(report.machine(scratch)), flush=True)
    found: list[Finding] = []
    try:
        for state in (large, small):
            rounds = _measure(state, scratch / state.title, options.rounds)
            found += findings(state.title, rounds)
            print(f"\n{state.title}\n{_table(rounds)}")
        print(f"\n{large.title}: memory\n{_memory(large, scratch / large.title)}")
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report.write_findings(options.json, found)
    return 0


def _measure(state: State, folder: Path, rounds: int) -> list[dict[str, Sample]]:
    checkpoint = state.make()
    distckpt.CheckpointManager(checkpoint, folder, 1).save()
    ways = _ways(checkpoint, folder)
    samples: list[dict[str, Sample]] = []
    for _ in range(rounds + 1):  # the first warms up
        order = random.sample(WAYS, len(WAYS))
        samples.append({way: _timed(ways[way]) for way in order})
    return samples[1:]


def _ways(checkpoint: tf.train.Checkpoint, folder: Path) -> dict[str, Callable[[], object]]:
    path = str(folder / "ckpt-1")
    return {
        FLOOR: lambda: _read_and_copy(sorted(folder.glob("ckpt-1.data-*"))),
        TENSORFLOW: lambda: checkpoint.restore(path),
        DIRECT: lambda: restore(checkpoint, path, verified=True),
        WHOLE: lambda: distckpt.CheckpointManager(checkpoint, folder, 1).restore_or_initialize(),
    }


def _read_and_copy(paths: list[Path]) -> None:
    target = np.empty(sum(path.stat().st_size for path in paths), np.uint8)
    buffer = np.empty(CHUNK, np.uint8)
    start = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(memoryview(buffer)):
                target[start : start + count] = buffer[:count]
                start += count


def _timed(call: Callable[[], object]) -> Sample:
    began, cpu = time.perf_counter(), time.process_time()
    call()
    return Sample(time.perf_counter() - began, time.process_time() - cpu)


def findings(title: str, rounds: list[dict[str, Sample]]) -> list[Finding]:
    """Returns the times of distckpt's ways as multiples of TensorFlow's."""
    return [
        Finding(
            f"{title}: {way} ÷ {TENSORFLOW}",
            Figure.of(each[way].wall / max(1e-6, each[TENSORFLOW].wall) for each in rounds),
        )
        for way in (DIRECT, WHOLE)
    ]


def _table(rounds: list[dict[str, Sample]]) -> str:
    columns = f"{'time':>9} {'÷ floor':>8} {'÷ TF':>6} {'CPU':>9} {'÷ floor':>8} {'÷ TF':>6}"
    lines = [f"{'':24}{columns}"]
    for way in WAYS:
        line = f"{way:24}"
        for field in Sample._fields:
            times = [getattr(each[way], field) for each in rounds]
            line += f" {1000 * statistics.median(times):6.0f} ms"
            for other, width in ((FLOOR, 8), (TENSORFLOW, 6)):
                ratios = [
                    getattr(each[way], field) / max(1e-6, getattr(each[other], field))
                    for each in rounds
                ]
                line += f" {statistics.median(ratios):{width}.2f}"
        lines.append(line)
    return "\n".join(lines)


def _memory(state: State, folder: Path) -> str:
    lines = []
    for way in WAYS[1:]:
        arguments = [__file__, "--directory", str(folder), "--way", way]
        arguments += ["--variables", str(state.count), "--megabytes", str(state.size // MIB)]
        found = subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
        above = int(found.stdout.split()[-1]) - state.size
        lines.append(f"{way:24} state + {above / MIB:5.0f} MiB")
    return "\n".join(lines)


def _peak(state: State, folder: Path, way: str) -> int:
    """Returns by how many bytes the process grows at most."""
    tf.Variable(0.0)
    before = _status("VmRSS")
    checkpoint = state.make()
    _ways(checkpoint, folder)[way]()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)


def _parse() -> argparse.Namespace:
    parser = parser_for_rounds(
        "Measures how fast a checkpoint is restored, and the memory that this takes."
    )
    add = parser.add_argument
    add("--megabytes", type=positive, default=1024, help="bytes of the large variables, in MiB")
    add("--variables", type=positive, default=32, help="number of large variables")
    add("--small", type=positive, default=10000, help="number of small variables")
    add("--way", choices=WAYS[1:], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
