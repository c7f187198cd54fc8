"""Measures the first update of all variables after an asynchronous save has begun.

    python tests/benchmarks/first_update.py --rounds 3

A save holds the variables' buffers. An update that finds a buffer held makes a new one and copies
the value. This program measures what that costs, as a multiple of a usual step, and what changes
it: settings of the memory allocators, and memory that has been touched before. Each way runs in a
process of its own, round by round, in random order. The columns:

- faults: minor page faults in the first step after the save has begun; one is 4 KiB of new memory,
- copied: the share of the state that was copied; the rest was updated in place,
- CPU: that step's processor time (with what the save's own threads use meanwhile) ÷ a usual step's,
- time: that step's time ÷ a usual step's, the median and the least,
- slowest: the slowest step until the save was complete ÷ a usual step, the median and the least,

The second table shows the processor time of a step ÷ a usual step's while a part of the variables
is held and nothing is written; and that of a step together with a copy of all variables to memory
that is kept for it, after which nothing need be held.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import report
from arguments import parser_for_rounds, positive
from summary import Figure, Finding

_PROGRAM = Path(__file__).resolve().with_name("first_update_program.py")
_CALM = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
_PLAIN = {"TF_ENABLE_ONEDNN_OPTS": "0"}  # TensorFlow then has no pool of its own
_KEEP = {
    "MALLOC_ARENA_MAX": "1",  # other arenas are unmapped as soon as they are empty
    "MALLOC_MMAP_THRESHOLD_": "33554432",  # glibc takes no more
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}
# {allocator: how it is told to keep what is freed}
_PRELOADED = {
    "tcmalloc_minimal": {"TCMALLOC_RELEASE_RATE": "0"},
    "jemalloc": {"MALLOC_CONF": "dirty_decay_ms:-1"},
}
DEFAULT, PREFAULTED = "default", "default, prefaulted"
WAYS: dict[str, dict[str, str]] = {
    DEFAULT: {},
    PREFAULTED: {},
    "huge pages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "oneDNN off": _PLAIN,
    "oneDNN off, malloc keeps": _PLAIN | _KEEP,
}
BOUND = 3.0
HELD = ("nothing", "1/4 held", "1/2 held", "3/4 held", "all held", "copied")

Sample = dict[str, Any]
Found = dict[str, list[dict[str, Any]]]


class ProgramFailedError(RuntimeError):
    """A process failed; the text says why."""


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="first-update-", dir=options.directory))
    print(report.describe_machine(report.machine(scratch)), flush=True)
    try:
        found = measure(options, scratch)
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    except ProgramFailedError as error:
        report.complain(str(error))
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report.write_findings(options.json, findings(found), samples=found)
    print(f"\n{options.megabytes} MiB in 32 variables\n{table(found)}\n")
    print(f"{held_table(found)}\n")
    print("\n".join(each.line() for each in findings(found)))
    return 0


def measure(options: argparse.Namespace, scratch: Path) -> Found:
    """Returns what each way measured, round by round; the processes save into `scratch`.

    Raises:
      ProgramFailedError: A process failed.
    """
    ways = {**WAYS, **_preloads(options.preload)}
    ways = {name: ways[name] for name in ways if options.only in name}
    found: Found = {name: [] for name in ways}
    for number in range(1, options.rounds + 1):
        for name in random.sample(list(ways), len(ways)):
            report.complain(f"round {number}: {name} …")
            found[name].append(_run(name, ways[name], scratch, options))
    return found


def _preloads(paths: list[Path]) -> dict[str, dict[str, str]]:
    """Returns the ways with another allocator, of those that are installed or given."""
    found = {}
    for name, settings in _PRELOADED.items():
        given = next((str(path.resolve()) for path in paths if name in path.name), None)
        if library := given or ctypes.util.find_library(name):
            found[f"oneDNN off, {name}"] = {**_PLAIN, **settings, "LD_PRELOAD": library}
        else:
            report.complain(f"{name} is not installed, and is left out.")
    return found


def _run(
    name: str, variables: dict[str, str], scratch: Path, options: argparse.Namespace
) -> dict[str, Any]:
    settings = {
        "megabytes": options.megabytes,
        "saves": options.saves,
        "between": options.between,
        "patience": options.patience,
        "directory": str(scratch),
        "prefault": name == PREFAULTED,
    }
    try:
        done = subprocess.run(
            [sys.executable, str(_PROGRAM), json.dumps(settings)],
            env={**os.environ, **_CALM, **variables},
            capture_output=True,
            text=True,
            timeout=options.deadline,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramFailedError(f"{name} took more than {options.deadline:.0f} s") from error
    if done.returncode:
        raise ProgramFailedError(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: Found) -> str:
    """Returns a line for the first save, and one for later saves, of each way."""
    columns = f"{'faults':>8} {'copied':>7} {'CPU':>6} {'time':>15} {'slowest':>15}"
    lines = [f"{'':42} {columns}"]
    for name, runs in found.items():
        later = [one for run in runs for one in run["later"]]
        lines.append(_line(f"{name}: first save", [run["first"] for run in runs]))
        lines.append(_line(f"{'':{len(name)}}  later saves", later))
    return "\n".join(lines)


def _line(title: str, samples: list[Sample]) -> str:
    faults = statistics.median(one["step"][2] for one in samples)
    copied = statistics.median(one["copied"] for one in samples) / 2**20
    cpu = statistics.median(map(processor_ratio, samples))
    first, slowest = _spread(map(first_ratio, samples)), _spread(map(slowest_ratio, samples))
    return f"{title:42} {faults:8.0f} {copied:3.0f} MiB {cpu:6.2f} {first:>15} {slowest:>15}"


def held_table(found: Found) -> str:
    """Returns the processor time of a step by how much is held, in usual steps, of each way."""
    columns = " ".join(f"{title:>9}" for title in HELD)
    lines = [f"{'':42} {columns}"]
    for name, runs in found.items():
        rows = [
            [*map(processor_ratio, held), processor_ratio(copy)]
            for run in runs
            for held, copy in zip(run["held"], run["copies"], strict=True)
        ]
        medians = (statistics.median(each) for each in zip(*rows, strict=True))
        lines.append(f"{name:42} " + " ".join(f"{number:9.2f}" for number in medians))
    return "\n".join(lines)


def _spread(numbers: Iterable[float]) -> str:
    figure = Figure.of(numbers)
    return f"{figure.median:.2f} ({figure.least:.2f}–)"


def processor_ratio(sample: Sample) -> float:
    """Returns the processor time of the first step, in usual steps."""
    return float(sample["step"][1] / sample["usual"][1])


def first_ratio(sample: Sample) -> float:
    """Returns the time of the first step, in usual steps."""
    return float(sample["step"][0] / sample["usual"][0])


def slowest_ratio(sample: Sample) -> float:
    """Returns the time of the slowest step until the save was complete, in usual steps."""
    return float(sample["slowest"] / sample["usual"][0])


def findings(found: Found) -> list[Finding]:
    """Returns what was expected of a later save, and of a first one."""
    expected = ("≤", BOUND)
    result = []
    for name in (DEFAULT, PREFAULTED):
        if runs := found.get(name):
            first = Figure.of(slowest_ratio(run["first"]) for run in runs)
            later = Figure.of(slowest_ratio(one) for run in runs for one in run["later"])
            for title, figure in (("first save", first), ("later saves", later)):
                text = f"every variable updated, {name}: {title}, slowest ÷ usual step"
                result.append(Finding(text, figure, expected))
    return result


def _parse() -> argparse.Namespace:
    parser = parser_for_rounds("Measures the first update of all variables after a save has begun.")
    parser.set_defaults(rounds=3)
    add = parser.add_argument
    add("--megabytes", type=positive, default=256, help="size of the state, in MiB")
    add("--saves", type=positive, default=5, help="later saves of each process")
    add("--between", type=positive, default=8, help="undisturbed steps before each save")
    add("--only", default="", metavar="TEXT", help="only the ways whose names contain this")
    text = "libtcmalloc_minimal.so or libjemalloc.so, if the system does not have it"
    add("--preload", type=Path, action="append", default=[], metavar="FILE", help=text)
    add("--patience", type=float, default=20.0, help="seconds to wait for a quiet disk")
    add("--deadline", type=float, default=600.0, help="seconds for each process")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
