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
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import distckpt


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="images in a step")
    parser.add_argument("--size", type=int, default=160, help="their width and height")
    parser.add_argument("--saves", type=int, default=5, help="saves; one more warms up")
    parser.add_argument("--between", type=int, default=6, help="undisturbed steps before each")
    options = parser.parse_args()
    step, checkpoint, nbytes = _program(options.batch, options.size)
    print(
        f"state {nbytes / 2**20:.0f} MiB, {options.batch} images of {options.size} x {options.size}"
    )
    print("stop ms  usual step ms  slowest during ms  ratio  slowest without, ratio  complete s")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        manager = distckpt.CheckpointManager(
            checkpoint, folder, 1, options=distckpt.ManagerOptions(enable_async=True)
        )
        for number in range(options.saves + 1):
            found = _save(manager, step, options.between)
            usual = statistics.median(found["before"])
            ratio = max(found["during"]) / usual
            quiet = max(found["before"]) / usual
            print(
                f"{1000 * found['stop']:7.1f}  {1000 * usual:13.0f}  "
                f"{1000 * max(found['during']):17.0f}  {ratio:5.2f}  {quiet:22.2f}  "
                f"{found['complete']:10.2f}" + ("" if number else "  (warms up)"),
                flush=True,
            )
            ratios.append(ratio)
    median = statistics.median(ratios[1:])
    verdict = "met" if median <= 2 else "NOT met"
    print(f"slowest step during a save / usual step: median {median:.2f}, expected <= 2: {verdict}")
    return 0


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
    before = [step() for _ in range(between)]
    began = time.perf_counter()
    path = manager.save()
    stop = time.perf_counter() - began
    during = [step()]
    while manager.latest_checkpoint != path:
        during.append(step())
        assert time.perf_counter() - began < 300, "a save is never complete"
    complete = time.perf_counter() - began
    manager.sync()
    return {"before": before, "stop": stop, "during": during, "complete": complete}


if __name__ == "__main__":
    sys.exit(main())
