"""Measures how long saves of many small variables stop training, and how long they take.

    python tests/benchmarks/holding.py --variables 10000 --rounds 5

One process saves asynchronously, round by round: with a new manager, again, and after the program
has made one more variable. Each round also times TensorFlow's own search for what is to be saved,
which ``tf.train.Checkpoint.write`` makes at each call. The table has medians, and ratios of
processor times to that search.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import disk
import report
import tensorflow as tf
from arguments import parser_for_rounds, positive
from summary import Figure, Finding
from tensorflow.python.checkpoint import save_util

import distckpt

SEARCH = "TensorFlow's search"
OPTIONS = distckpt.ManagerOptions(enable_async=True)


class Sample(NamedTuple):
    """One save: how long training was stopped and how long it took in all, in seconds."""

    stop: float
    stop_cpu: float
    whole: float
    whole_cpu: float


Round = dict[str, Sample]


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="holding-", dir=options.directory))
    print(report.describe_machine(report.machine(scratch)), flush=True)
    module = tf.Module()
    module.weights = [tf.Variable([float(n)] * 10) for n in range(options.variables)]
    checkpoint = tf.train.Checkpoint(module=module)
    try:
        rounds = [_round(checkpoint, scratch / str(number)) for number in range(options.rounds + 1)]
        print(f"\n{options.variables} variables of 10 floats\n{_table(rounds[1:])}")
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report.write_findings(options.json, findings(options.variables, rounds[1:]))
    return 0


def _round(checkpoint: tf.train.Checkpoint, folder: Path) -> Round:
    view = checkpoint._saver._graph_view
    measured = {SEARCH: _timed(lambda: save_util.serialize_graph_view(view, None))}
    manager = distckpt.CheckpointManager(checkpoint, folder, 1, options=OPTIONS)
    for name in ("first save", "next save", "after a change"):
        if name == "after a change":
            checkpoint.module.weights.append(tf.Variable([1.0] * 10))
        disk.settle()
        measured[name] = _timed(manager.save, manager.sync)
    return measured


def _timed(stop: Callable[[], object], rest: Callable[[], object] = lambda: None) -> Sample:
    started, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
    stop()
    stopped, own = time.perf_counter() - started, time.thread_time() - own
    rest()
    return Sample(stopped, own, time.perf_counter() - started, time.process_time() - cpu)


def findings(variables: int, rounds: list[Round]) -> list[Finding]:
    """Returns the processor times for which training is stopped, as multiples of the search's."""
    title = f"{variables:,} variables of 10 floats"
    return [
        Finding(
            f"{title}, {name}: CPU of the stop ÷ TensorFlow's search",
            Figure.of(r[name].stop_cpu / r[SEARCH].stop_cpu for r in rounds),
        )
        for name in rounds[0]
        if name != SEARCH
    ]


def _table(rounds: list[Round]) -> str:
    columns = f"{'time':>8} {'CPU':>8} {'÷ search':>9}"
    lines = [f"{'':20} {'training stopped':^27}   {'in all':^27}", f"{'':20} {columns}   {columns}"]
    for name in rounds[0]:
        stop, own, whole, cpu = (
            statistics.median(times) for times in zip(*(r[name] for r in rounds), strict=True)
        )
        stops = statistics.median(r[name].stop_cpu / r[SEARCH].stop_cpu for r in rounds)
        wholes = statistics.median(r[name].whole_cpu / r[SEARCH].stop_cpu for r in rounds)
        lines.append(
            f"{name:20} {_ms(stop)} {_ms(own)} {stops:9.2f}   {_ms(whole)} {_ms(cpu)} {wholes:9.2f}"
        )
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:5.0f} ms"


def _parse() -> argparse.Namespace:
    parser = parser_for_rounds("Measures how long saves of many small variables stop training.")
    add = parser.add_argument
    add("--variables", type=positive, default=10000, help="number of variables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
