"""Measures how fast a shard's data files are written: by distckpt, by SaveV2, and plainly.

    python tests/benchmarks/data_file.py --megabytes 1024 --rounds 5

One process writes the same tensors in each way, in random order, round by round: with distckpt's
own writer and with TensorFlow's op, each as one file and as four that are written in parallel, and
as a plain file in chunks of 1 MiB. Once without flushing; once durable, that is with fsync. The
table has the median ratio of a round's times to that of the plain file, and processor time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import disk
import numpy as np
import report
import tensorflow as tf
from arguments import parser_for_rounds, positive
from summary import Figure, Finding

from distckpt.state.base import BundleWriter
from distckpt.state.writing.direct_writer import DirectWriter
from distckpt.state.writing.tensorflow_ops import OpWriter
from distckpt.storage.local import LocalStorage

CHUNK = 1 << 20
PARTS = (1, 4)
PLAIN = "plain file"
STORAGE = LocalStorage()


class Sample(NamedTuple):
    """What writing once took, in seconds."""

    wall: float
    cpu: float


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="data-file-", dir=options.directory))
    print(report.describe_machine(report.machine(scratch)), flush=True)
    generator = np.random.default_rng(0)
    elements = options.megabytes * CHUNK // options.variables // 4
    tensors = [
        tf.constant(generator.random(elements, np.float32)) for _ in range(options.variables)
    ]
    found: list[Finding] = []
    try:
        for durable in (False, True):
            rounds = _play(_ways(scratch, tensors, durable), scratch, options.rounds)
            title = f"{options.megabytes} MiB in {options.variables} tensors"
            title += ", durable" if durable else ", not flushed"
            found += findings(title, rounds)
            print(f"\n{title}")
            print(_table(rounds), flush=True)
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report.write_findings(options.json, found)
    return 0


def _ways(folder: Path, tensors: list[Any], durable: bool) -> dict[str, Callable[[], None]]:
    """Returns functions that write the tensors into `folder`, by the name of the way."""
    ways: dict[str, Callable[[], None]] = {PLAIN: lambda: _write_plainly(folder, tensors, durable)}
    writers: dict[str, BundleWriter] = {
        "SaveV2": OpWriter(),
        "distckpt": DirectWriter(durable=durable),
    }
    for name, writer in writers.items():
        for parts in PARTS:
            ways[f"{name}, {parts} {'file' if parts == 1 else 'files'}"] = (
                lambda writer=writer, parts=parts: _write(folder, writer, tensors, parts, durable)
            )
    return ways


def _write_plainly(folder: Path, tensors: list[Any], durable: bool) -> None:
    with open(folder / "plain", "wb", buffering=0) as file:
        for tensor in tensors:
            data = tensor._numpy().view(np.uint8)
            for start in range(0, len(data), CHUNK):
                file.write(data[start : start + CHUNK])
        if durable:
            os.fsync(file.fileno())


def _write(
    folder: Path, writer: BundleWriter, tensors: list[Any], parts: int, durable: bool
) -> None:
    def part(number: int) -> None:
        mine = tensors[number::parts]
        writer.write(str(folder / f"part-{number}"), _keys(mine), [""] * len(mine), mine)
        if durable:
            for path in folder.glob(f"part-{number}.*"):
                STORAGE.flush(str(path))

    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(part, range(parts)))


def _keys(tensors: list[Any]) -> list[str]:
    return [f"variable-{number:05d}" for number in range(len(tensors))]


def _play(ways: dict[str, Callable[[], None]], folder: Path, count: int) -> list[dict[str, Sample]]:
    rounds = []
    for _ in range(count + 1):  # the first one warms up and does not count
        rounds.append(
            {way: _measure(ways[way], folder) for way in random.sample([*ways], len(ways))}
        )
    return rounds[1:]


def _measure(write: Callable[[], None], folder: Path) -> Sample:
    """Writes once, on a disk at rest."""
    for path in folder.iterdir():
        path.unlink()
    disk.settle(10.0)
    wall, cpu = time.perf_counter(), time.process_time()
    write()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def findings(title: str, rounds: list[dict[str, Sample]]) -> list[Finding]:
    """Returns the times as multiples of the plain file's."""
    return [
        Finding(f"{title}: {way} ÷ plain file", _figure(rounds, way))
        for way in sorted(rounds[0])
        if way != PLAIN
    ]


def _figure(rounds: list[dict[str, Sample]], way: str) -> Figure:
    return Figure.of(measured[way].wall / measured[PLAIN].wall for measured in rounds)


def _table(rounds: list[dict[str, Sample]]) -> str:
    lines = [f"{'':20}{'time, as a multiple of the plain file':>40}{'CPU':>10}"]
    for way in sorted(rounds[0]):
        ratio = _figure(rounds, way)
        cpu = statistics.median(measured[way].cpu for measured in rounds)
        figure = f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.most:.2f})"
        lines.append(f"{way:20}{figure:>40}{1000 * cpu:7.0f} ms")
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = parser_for_rounds(
        "Measures how fast data files are written: by distckpt, SaveV2, and plainly."
    )
    add = parser.add_argument
    add("--megabytes", type=positive, default=1024, help="size of all tensors, in MiB")
    add("--variables", type=positive, default=32, help="number of tensors")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
