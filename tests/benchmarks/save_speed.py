"""Measures how long a save takes: distckpt, TensorFlow's recipe, and plain writing.

    python tests/benchmarks/save_speed.py --workers 1,4 --states big --rounds 3

For each state and number of workers it starts a MultiWorkerMirroredStrategy of real processes and
saves round by round, in each round once in every way, in random order. Before every save the disk
is given time to finish what it was doing. What is measured and why is told in README.md.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import disk
import report
from arguments import positive
from summary import WAYS, Round, Run, Sample, titled_findings, to_json
from workers import WorkerFailedError, Workers

STATES = ("big", "small")


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    signal.signal(signal.SIGTERM, _stop)
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="save-speed-", dir=options.directory))
    facts = report.machine(scratch)
    print(report.describe_machine(facts), flush=True)
    runs = []
    try:
        for state in options.states:
            for workers in options.workers:
                report.complain(f"{state}, {workers} workers …")
                runs.append(_run(state, workers, scratch, options))
                print("\n" + report.describe(runs[-1]), flush=True)
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    except WorkerFailedError as error:
        report.complain(f"Failed: {error}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if options.json:
            found = [each for run in runs for each in titled_findings(run)]
            more = {"machine": facts, "runs": [to_json(run) for run in runs]}
            report.write_findings(options.json, found, **more)
    return 0


def _run(state: str, count: int, scratch: Path, options: argparse.Namespace) -> Run:
    folder = scratch / f"{state}-{count}"
    with Workers(count) as workers:
        state_bytes = workers.call(
            "prepare",
            timeout=600.0,
            directory=str(folder),
            state=state,
            megabytes=options.megabytes,
            variables=options.variables,
            keep=1 if options.prune else None,
        )[0]
        rounds = []
        for number in range(options.rounds + 1):  # the first one warms up and does not count
            order = random.sample(WAYS, len(WAYS))
            measured = {way: _measure(workers, way, folder / way, options.prune) for way in order}
            rounds.append(measured)
            report.complain(f"  round {number}: {_brief(measured)}")
    shutil.rmtree(folder)
    return Run(state, count, state_bytes, rounds[1:])


def _measure(workers: Workers, way: str, folder: Path, prune: bool) -> Sample:
    """Saves once, in one way, on a disk at rest."""
    if not prune or way == "floor":
        disk.remove_checkpoints(folder, "ckpt-")
    settled = disk.settle()
    saves: list[dict[str, Any]] = workers.call("save", way=way, start_at=time.monotonic() + 0.05)
    sizes = disk.sizes(folder)
    cleaning = workers.call("clean_up", way=way)
    first = min(save["started"] for save in saves)
    ended = [save["ended"] for save in saves]
    return Sample(
        seconds=max(ended) - first,
        seconds_cleaned=max(e + c for e, c in zip(ended, cleaning, strict=True)) - first,
        sizes=sizes,
        agreement=saves[0].get("agreement"),
        actions=[save.get("actions", {}) for save in saves],
        settled=settled,
        late=max(save["started"] for save in saves) - first,
    )


def _brief(measured: Round) -> str:
    return ", ".join(f"{way} {measured[way].seconds:.3f} s" for way in WAYS)


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # so that a TERM ends the workers, too


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures how long a save takes: distckpt, TensorFlow's recipe, plain writing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workers", type=_numbers, default="1,2,4", help="numbers of workers")
    add("--states", type=_states, default="big,small", help="which of: big, small")
    add("--rounds", type=positive, default=5, help="rounds that count; one more warms up")
    add("--megabytes", type=positive, default=512, help="size of the big state, in MiB")
    add("--variables", type=positive, default=10000, help="variables of the small state")
    add("--prune", action="store_true", help="let every save delete the checkpoint before it")
    add("--json", type=Path, metavar="FILE", help="write all measurements there")
    add("--directory", type=Path, default=tempfile.gettempdir(), help="save below this directory")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def _states(text: str) -> list[str]:
    states = text.split(",")
    for state in states:
        if state not in STATES:
            raise argparse.ArgumentTypeError(f"{state!r} is neither big nor small")
    return states


if __name__ == "__main__":
    sys.exit(main())
