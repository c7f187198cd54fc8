"""Measures what distckpt's inputs cost, next to the dataset that TensorFlow distributes itself.

    python tests/benchmarks/input_speed.py --workers 2 --rounds 7

It starts a MultiWorkerMirroredStrategy of real processes, which go through the same examples, round
by round, in each round once with every input, in random order. A step does next to nothing, so what
is timed is the input and one small collective. The ratios are within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
import tensorflow as tf
from arguments import add_json
from summary import Figure, Finding

import distckpt
from distckpt.launcher import LocalCluster

EXAMPLES, FEATURES, BATCH = 60_000, 64, 64  # BATCH: of one worker
PLAIN = "TensorFlow's, endless"
Step = Callable[[Any], Any]


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="how many")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count; one warms up")
    parser.add_argument("--steps", type=int, default=300, help="steps with each input in a round")
    parser.add_argument("--deadline", type=float, default=900.0, help="seconds for all of it")
    add_json(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # internal: where to write the figures
    options = parser.parse_args()
    if options.worker:
        Worker(options).run(Path(options.worker))
        return 0
    with tempfile.TemporaryDirectory(prefix="input-speed-") as scratch:
        print(report.describe_machine(report.machine(Path(scratch))), flush=True)
        figures = Path(scratch, "figures.json")
        command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
        with LocalCluster(
            [*command, "--worker", str(figures)],
            workers=options.workers,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        ) as cluster:
            ended = cluster.wait(options.deadline)
            if any(worker.returncode for worker in ended):
                report.complain("\n".join(cluster.output(i)[-3000:] for i in range(len(ended))))
                return 1
        loops = json.loads(figures.read_text())
        for loop, rounds in loops.items():
            print("\n".join(_table(loop, rounds, options.steps)), flush=True)
    found = [each for loop, rounds in loops.items() for each in findings(loop, rounds)]
    report.write_findings(options.json, found)
    return 0


def findings(loop: str, rounds: list[dict[str, float]]) -> list[Finding]:
    """Returns the times of distckpt's inputs as multiples of TensorFlow's."""
    return [
        Finding(f"{loop}: {way} ÷ {PLAIN}", Figure.of(r[way] / r[PLAIN] for r in rounds))
        for way in rounds[0]
        if not way.startswith("TensorFlow")
    ]


def _table(loop: str, rounds: list[dict[str, float]], steps: int) -> list[str]:
    lines = ["", f"| {loop} | microseconds a step | of {PLAIN} |", "|---|---|---|"]
    for way in rounds[0]:
        micros = sorted(1e6 * r[way] / steps for r in rounds)
        ratios = sorted(r[way] / r[PLAIN] for r in rounds)
        lines.append(f"| {way} | {report.spread(micros, 0)} | {report.spread(ratios, 2)} |")
    return lines


class Worker:
    """One worker's part. All do the same in the same order."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self.source = tf.random.stateless_uniform((EXAMPLES, FEATURES), (1, 2))
        self.inputs: dict[str, Any] = {
            PLAIN: self._distributed(lambda dataset: dataset.repeat()),
            "TensorFlow's, with an end": self._distributed(lambda dataset: dataset.repeat(1000)),
            "WorkerInput": distckpt.WorkerInput(self._dataset, self.strategy),
            "IndexedInput": distckpt.IndexedInput(
                EXAMPLES,
                BATCH * options.workers,
                lambda indices, _: indices.map(self._read).prefetch(tf.data.AUTOTUNE),
                strategy=self.strategy,
                drop_remainder=True,
            ),
        }

    def run(self, path: Path) -> None:
        """Measures; the chief writes the figures."""
        figures = {
            "Eager loop": self._rounds(self._eagerly),
            "Loop in a `tf.function`": self._rounds(self._in_a_function),
        }
        if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
            path.write_text(json.dumps(figures))

    def _rounds(self, prepare: Callable[[Any], Callable[[], Any]]) -> list[dict[str, float]]:
        loops = {way: prepare(batches) for way, batches in self.inputs.items()}
        chance = random.Random(1)  # the same on all workers
        rounds = []
        for _ in range(self.options.rounds + 1):
            order = chance.sample(list(loops), len(loops))
            seconds = {way: _seconds(loops[way]) for way in order}
            rounds.append({way: seconds[way] for way in loops})
        return rounds[1:]

    def _eagerly(self, batches: Any) -> Callable[[], Any]:
        step = tf.function(self._step)

        def loop() -> None:
            for _ in range(self.options.steps):
                step(next(batches))

        return loop

    def _in_a_function(self, batches: Any) -> Callable[[], Any]:
        steps = tf.constant(self.options.steps)

        @tf.function
        def loop() -> Any:
            total = tf.constant(0.0)
            for _ in tf.range(steps):
                total += self._step(next(batches))
            return total

        return lambda: loop().numpy()

    def _step(self, batch: Any) -> Any:
        each = self.strategy.run(tf.reduce_mean, args=(batch,))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)

    def _distributed(self, repeat: Callable[[Any], Any]) -> Any:
        return iter(
            self.strategy.distribute_datasets_from_function(
                lambda context: self._dataset(context, repeat)
            )
        )

    def _dataset(
        self, context: Any, repeat: Callable[[Any], Any] = lambda dataset: dataset.repeat()
    ) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(EXAMPLES)
        numbers = numbers.shard(context.num_input_pipelines, context.input_pipeline_id)
        batches = repeat(numbers.shuffle(1000)).batch(BATCH, drop_remainder=True)
        return batches.map(self._read).prefetch(tf.data.AUTOTUNE)

    def _read(self, indices: Any) -> Any:
        return tf.gather(self.source, indices)


def _seconds(loop: Callable[[], Any]) -> float:
    began = time.monotonic()
    loop()
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
