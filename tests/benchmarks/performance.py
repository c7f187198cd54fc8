"""Measures what saving costs a training program: distckpt, TensorFlow, Orbax and PyTorch.

    python tests/benchmarks/performance.py --write-docs

What is measured and how is told in docs/performance.md, whose tables and plots this program writes.
The other libraries run in virtual environments of their own, which it makes at the first run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import report
from arguments import positive
from perf import memory, pace, pages, restores, scaling, stops
from perf.environments import DEFAULT
from perf.lab import Lab

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECTIONS: dict[str, Callable[[Lab], Any]] = {
    "stop": stops.measure,
    "workers": stops.measure_workers,
    "pace": pace.measure,
    "memory": memory.measure,
    "leak": memory.measure_many,
    "restore": restores.measure,
    "scale": scaling.measure,
}
_QUICK = {"rounds": 1, "megabytes": 32, "variables": 100, "steps": 5, "saves": 8, "patience": 0.1}


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    signal.signal(signal.SIGTERM, _stop)
    results = json.loads(options.read.read_text()) if options.read else _measure(options)
    print(pages.as_text(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.write_docs:
        pages.write(results, DOCS / "performance.md", DOCS / "performance")
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="performance-", dir=options.directory))
    lab = Lab(options, scratch)
    facts = report.machine(scratch)
    results: dict[str, Any] = {}
    try:
        for name in options.only:
            results[name] = SECTIONS[name](lab)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    settings = {k: getattr(options, k) for k in _QUICK}
    return {"machine": facts | lab.versions, "settings": settings, "sections": results}


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # so that a TERM ends the other processes, too


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures what saving costs a training program.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    every = ",".join(SECTIONS)
    add("--only", type=_sections, default=every, metavar="NAMES", help="which sections")
    add("--rounds", type=positive, default=3, help="rounds that count, without those to warm up")
    add("--megabytes", type=positive, default=1024, help="size of the big state, in MiB")
    add("--variables", type=positive, default=10000, help="variables of the small state")
    add("--steps", type=positive, default=20, help="training steps before and after a save")
    add("--saves", type=positive, default=50, help="saves in a row, for the memory they leave")
    add("--patience", type=float, default=60.0, help="seconds to wait for a quiet disk")
    add("--quick", action="store_true", help="tiny sizes and few rounds, to try it out")
    add("--json", type=Path, metavar="FILE", help="write all measurements there")
    add("--read", type=Path, metavar="FILE", help="measure nothing, take what --json wrote")
    add("--write-docs", action="store_true", help=f"write tables and plots into {DOCS.name}/")
    add("--environments", type=Path, default=DEFAULT, help="where the environments are kept")
    add("--directory", type=Path, default=tempfile.gettempdir(), help="save below this directory")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(_QUICK)
    return options


def _sections(text: str) -> list[str]:
    for name in (names := text.split(",")):
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
