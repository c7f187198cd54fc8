"""Measures everything: what saving costs a training program, beside TensorFlow, Orbax and PyTorch.

    python tests/benchmarks/performance.py --quick     # at most 10 minutes, small states
    python tests/benchmarks/performance.py --write     # renews docs/performance.md

It runs all benchmarks of this folder that measure speed, prints their tables, and one table of all
that was expected: the measure, its bound, what was reached, and whether that meets the bound. It
says how quiet the machine was, and repeats rounds during which it was not. docs/performance.md
describes the measurement. The other libraries run in virtual environments of their own, which the
first run makes; a library that cannot be had is left out.

Exit codes: 0; 1 if --write has written nothing, because the run does not deserve it; 130 after
Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import report
from arguments import positive
from perf import memory, pace, pages, programs, restores, scaling, stops
from perf.environments import DEFAULT
from perf.lab import Lab
from perf.progress import Progress, TimeIsUpError

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
NAMES = [*SECTIONS, *programs.PROGRAMS]
_QUICK = {"rounds": 1, "megabytes": 32, "variables": 100, "steps": 5, "saves": 8, "patience": 0.1}
_QUICK_MINUTES = 10.0


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    signal.signal(signal.SIGTERM, _stop)
    results = json.loads(options.read.read_text()) if options.read else _measure(options)
    print(pages.as_text(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if results.get("interrupted"):
        report.complain("Interrupted: the rest was not measured.")
        return 130
    if options.write:
        if (why := pages.objections(results)) and not options.anyway:
            report.complain(f"{DOCS.name}/ stays as it is: {'; '.join(why)}. See --anyway.")
            return 1
        pages.write(results, DOCS / "performance.md", DOCS / "performance")
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="performance-", dir=options.directory))
    progress = Progress(len(options.only), 60 * options.minutes)
    lab = Lab(options, scratch, progress)
    facts = report.machine(scratch)
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    interrupted = False
    try:
        if {*SECTIONS} & {*options.only}:
            lab.prepare()  # it takes long, once, and is not what the time is for
        progress.begin()
        _measure_all(lab, results, left_out)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress.end()
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "machine": facts | lab.versions,
        "settings": {k: getattr(options, k) for k in _QUICK} | {"quick": options.quick},
        "sections": results,
        "left out": left_out,
        "missing": lab.missing,
        "quiet": {"counting": lab.counting, "made": lab.made},
        "interrupted": interrupted,
    }


def _measure_all(lab: Lab, results: dict[str, Any], left_out: dict[str, str]) -> None:
    """Measures each section; fills `results` as it goes, so that an interruption loses little."""
    for name in lab.options.only:
        if lab.progress.left() <= 0:
            left_out[name] = "no time was left"
            continue
        lab.progress.part(name)
        try:
            results[name] = _section(lab, name)
        except TimeIsUpError:
            left_out[name] = "the time was up"
        except programs.ProgramFailedError as error:
            left_out[name] = str(error)
        lab.progress.finished()


def _section(lab: Lab, name: str) -> Any:
    if name in SECTIONS:
        return SECTIONS[name](lab)
    program, quick = programs.PROGRAMS[name], lab.options.quick
    return lab.rounds(name, lambda: programs.run(program, lab.scratch, quick), 1)[0]


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # so that a TERM ends the other processes, too


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures what saving costs a training program, and all else that has a bound.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit codes: 0; 1: --write has written nothing; 130: interrupted.",
    )
    add = parser.add_argument
    add("--only", type=_sections, default=",".join(NAMES), metavar="NAMES", help="which sections")
    add("--rounds", type=positive, default=3, help="rounds that count, without those to warm up")
    add("--megabytes", type=positive, default=1024, help="size of the big state, in MiB")
    add("--variables", type=positive, default=10000, help="variables of the small state")
    add("--steps", type=positive, default=20, help="training steps before and after a save")
    add("--saves", type=positive, default=50, help="saves in a row, for the memory they leave")
    add("--patience", type=float, default=60.0, help="seconds to wait for a quiet disk")
    add("--minutes", type=float, default=math.inf, help="how long it may take, in all")
    text = f"tiny sizes, few rounds, and at most {_QUICK_MINUTES:g} minutes"
    add("--quick", action="store_true", help=text)
    add("--json", type=Path, metavar="FILE", help="write all measurements there")
    add("--read", type=Path, metavar="FILE", help="measure nothing, take what --json wrote")
    text = f"write tables and plots into {DOCS.name}/, unless the machine was disturbed"
    add("--write", action="store_true", help=text)
    add("--anyway", action="store_true", help="write them even then")
    add("--environments", type=Path, default=DEFAULT, help="where the environments are kept")
    add("--directory", type=Path, default=tempfile.gettempdir(), help="save below this directory")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(_QUICK)
        options.minutes = min(options.minutes, _QUICK_MINUTES)
    return options


def _sections(text: str) -> list[str]:
    for name in (names := text.split(",")):
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NAMES)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
