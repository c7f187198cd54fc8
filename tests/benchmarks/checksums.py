"""Compares libraries that compute CRC32C, the checksum of TensorFlow's data files.

    pip install awscrt crc32c crc32c-rs
    python tests/benchmarks/checksums.py

Libraries that are not installed are left out. The table tells for each one:

- how many GiB it gets through in a second of CPU, in chunks of 1 MiB,
- how long a call takes for 64 bytes,
- how fast a thread runs Python code while another thread computes the checksum of each chunk and
  writes the chunk to a file. The figure is a multiple of the speed beside a thread that only
  writes; a library that holds the GIL during a call makes it lower.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import report
from arguments import positive

CHUNK = 1 << 20
FILE_CHUNKS = 64
LIBRARIES = {  # package: (module, function)
    "google-crc32c": ("google_crc32c", "value"),
    "awscrt": ("awscrt.checksums", "crc32c"),
    "crc32c": ("crc32c", "crc32c"),
    "crc32c-rs": ("crc32c_rs", "crc32c"),
}

Chunk = npt.NDArray[np.uint8]
Checksum = Callable[[Chunk], int]


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    print(report.describe_machine(report.machine(options.directory)), flush=True)
    header = f"{'':24}{'GiB/s of CPU':>14}{'64 bytes':>12}{'other thread':>14}"
    print(header, flush=True)
    try:
        for package, (module, function) in LIBRARIES.items():
            print(_row(package, module, function, options), flush=True)
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    return 0


def _row(package: str, module: str, function: str, options: argparse.Namespace) -> str:
    try:
        checksum = getattr(importlib.import_module(module), function)
        title = f"{package} {metadata.version(package)}"
    except ImportError:
        return f"{package:24}not installed"
    chunk = np.frombuffer(np.random.default_rng(0).bytes(CHUNK), np.uint8)  # read-only: all take it
    speed = 1 / (_cpu(checksum, chunk, 2000) * 1024)
    small = 1e6 * _cpu(checksum, chunk[:64], 200_000)
    others = statistics.median(_pace(checksum, chunk, options) for _ in range(options.rounds))
    return f"{title:24}{speed:14.1f}{small:9.2f} µs{others:14.2f}"


def _cpu(checksum: Checksum, data: Chunk, calls: int) -> float:
    """Returns the CPU seconds of a call."""
    checksum(data)
    begin = time.process_time()
    for _ in range(calls):
        checksum(data)
    return (time.process_time() - begin) / calls


def _pace(checksum: Checksum, chunk: Chunk, options: argparse.Namespace) -> float:
    """Returns the speed of a thread beside one that checks and writes, to that beside a writer."""
    with tempfile.TemporaryFile(dir=options.directory) as file:

        def write(check: bool) -> Iterator[None]:
            while True:
                for number in range(FILE_CHUNKS):
                    if check:
                        checksum(chunk)
                    os.pwrite(file.fileno(), chunk, number * CHUNK)
                    yield

        alone = _count_beside(write(check=False), options.seconds)
        return _count_beside(write(check=True), options.seconds) / alone


def _count_beside(work: Iterator[None], seconds: float) -> float:
    """Returns how often a second a loop in Python runs while another thread goes through `work`."""
    end = threading.Event()

    def go_on() -> None:
        while not end.is_set():
            next(work)

    thread = threading.Thread(target=go_on)
    thread.start()
    rounds, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        rounds += 1
    end.set()
    thread.join()
    return rounds / seconds


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compares libraries that compute CRC32C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=5, help="measurements of the other thread's speed")
    add("--seconds", type=float, default=1.0, help="how long each of them lasts")
    add("--directory", type=Path, default=tempfile.gettempdir(), help="write below this directory")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
