"""Measures how much asynchronous saves slow real training steps: ResNet50 with Adam, 293 MiB.

    python tests/benchmarks/real_training.py

The steps of performance.py do little but write to every variable, so that a step which also has to
copy every buffer shows in full. Here a step is what it is in training: forward, backward, Adam.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import report
import tensorflow as tf
from arguments import add_json, positive
from summary import Figure, Finding

import distckpt

BOUND = 1.15
_HEADER = (
    "stop ms  usual step ms  slowest during ms  ratio  slowest without, ratio  "
    "CPU ratio  complete s"
)


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _parse()
    step, checkpoint, nbytes = _program(options.batch, options.size)
    print(
        f"state {nbytes / 2**20:.0f} MiB, {options.batch} images of {options.size} x {options.size}"
    )
    print(_HEADER)
    samples = []
    try:
        with tempfile.TemporaryDirectory(dir=options.directory) as folder:
            manager = distckpt.CheckpointManager(
                checkpoint, folder, 1, options=distckpt.ManagerOptions(enable_async=True)
            )
            for number in range(options.saves + 1):
                samples.append(_save(manager, step, options.between))
                print(_row(samples[-1]) + ("" if number else "  (warms up)"), flush=True)
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    found = findings(samples[1:])
    print("\n".join(each.line() for each in found))
    report.write_findings(options.json, found)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--batch", type=positive, default=8, help="images in a step")
    add("--size", type=positive, default=160, help="their width and height")
    add("--saves", type=positive, default=5, help="saves; one more warms up")
    add("--between", type=positive, default=6, help="undisturbed steps before each")
    add("--directory", type=Path, default=tempfile.gettempdir(), help="save below this directory")
    add_json(parser)
    return parser.parse_args()


def findings(samples: Sequence[dict[str, Any]]) -> list[Finding]:
    """Returns how much slower the slowest step of each save was, and how much more it computed.

    The processor time of a step includes what the save's own threads use meanwhile.
    """
    slowest = Figure.of(max(s["during"]) / statistics.median(s["before"]) for s in samples)
    cpu = Figure.of(s["cpu during"] / s["cpu before"] for s in samples)
    stops = Figure.of(1000 * s["stop"] for s in samples)
    title = "ResNet50 with Adam, trained:"
    return [
        Finding(f"{title} slowest step during a save ÷ usual step", slowest, ("≤", BOUND)),
        Finding(f"{title} CPU of the first step ÷ usual step's", cpu),
        Finding(f"{title} training stopped", stops, None, " ms"),
    ]


def _row(sample: dict[str, Any]) -> str:
    usual = statistics.median(sample["before"])
    slowest, quiet = max(sample["during"]), max(sample["before"])
    return (
        f"{1000 * sample['stop']:7.1f}  {1000 * usual:13.0f}  {1000 * slowest:17.0f}  "
        f"{slowest / usual:5.2f}  {quiet / usual:22.2f}  "
        f"{sample['cpu during'] / sample['cpu before']:9.2f}  {sample['complete']:10.2f}"
    )


def _program(batch: int, size: int) -> tuple[Any, tf.train.Checkpoint, int]:
    """Returns a function that trains one step, what to save, and its size in bytes."""
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    images = tf.random.uniform((batch, size, size, 3))
    labels = tf.random.uniform((batch,), maxval=1000, dtype=tf.int32)
    loss = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    def step() -> float:
        began = time.perf_counter()
        train().numpy()
        return time.perf_counter() - began

    variables = [v.value for v in (*model.variables, *optimizer.variables)]
    nbytes = sum(v.shape.num_elements() * v.dtype.size for v in variables)
    step()
    return step, tf.train.Checkpoint(model=model, optimizer=optimizer), nbytes


def _save(manager: Any, step: Any, between: int) -> dict[str, Any]:
    """Trains, saves, and trains on until the save is complete; returns what was measured."""
    before, cpus = [], []
    for _ in range(between):
        began = time.process_time()
        before.append(step())
        cpus.append(time.process_time() - began)
    began = time.perf_counter()
    path = manager.save()
    stop = time.perf_counter() - began
    cpu = time.process_time()
    during = [step()]
    cpu = time.process_time() - cpu
    while manager.latest_checkpoint != path:
        during.append(step())
        assert time.perf_counter() - began < 300, "a save is never complete"
    complete = time.perf_counter() - began
    manager.sync()
    return {
        "before": before,
        "cpu before": statistics.median(cpus),
        "stop": stop,
        "during": during,
        "cpu during": cpu,
        "complete": complete,
    }


if __name__ == "__main__":
    sys.exit(main())
