"""A training program with a deterministic state for each step, for tests that kill it.

Run by `LocalCluster`. Environment: DIRECTORY, STEPS, ROWS, ASYNC ("1" or not), LOG (a folder: each
worker appends the steps that it knows to be saved). After a restart it goes on from the last
checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import tensorflow as tf

import distckpt

ROWS = int(os.environ.get("ROWS", "1024"))


def value(step: int, shape: tuple[int, ...]) -> tf.Tensor:
    """The content that a variable has after `step`."""
    return tf.random.stateless_uniform(shape, seed=(step, 7))


def main() -> None:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    config = json.loads(os.environ["TF_CONFIG"])
    name = f"{config['task']['type']}-{config['task']['index']}"
    with strategy.scope():
        big = tf.Variable(tf.zeros((ROWS, 1024)))
        step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(big=big, step=step)
    options = distckpt.ManagerOptions(enable_async=os.environ.get("ASYNC") == "1")
    manager = distckpt.CheckpointManager(checkpoint, os.environ["DIRECTORY"], 2, options=options)
    print("restored", manager.restore_or_initialize(), flush=True)
    first = int(step.numpy())
    same = first == 0 or bool(tf.reduce_all(big.read_value() == value(first, big.shape)))
    print("resumed", first, "equal", same, flush=True)
    assert same
    for number in range(first + 1, int(os.environ["STEPS"]) + 1):
        big.assign(value(number, big.shape))
        step.assign(number)
        manager.save()
        # An asynchronous save that returns has waited for the one before.
        known = number - 1 if options.enable_async else number
        with Path(os.environ["LOG"], name).open("a") as log:
            log.write(f"{known}\n")
            log.flush()
    manager.sync()
    print("digest", hashlib.sha256(big.numpy().tobytes()).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
