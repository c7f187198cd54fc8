"""Processes without a TensorFlow cluster: with the same plain variables, they share the writing."""

from __future__ import annotations

import json
import os

import tensorflow as tf

import distckpt


def main() -> None:
    config = json.loads(os.environ.pop("TF_CONFIG"))  # only to learn who this is
    index, count = config["task"]["index"], len(config["cluster"]["worker"])
    run = f"{os.environ['DISTCKPT_RUN_ID']}-{os.environ['DISTCKPT_RESTART']}"
    coordinator = distckpt.SharedDirectory(os.environ["MEETING"], run, index, count)
    table = tf.Variable(tf.random.stateless_uniform((30000, 64), seed=(3, 4)))
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(table=table, step=step)
    manager = distckpt.CheckpointManager(
        checkpoint, os.environ["DIRECTORY"], 2, coordinator=coordinator
    )
    print("restored", manager.restore_or_initialize(), int(step.numpy()), flush=True)
    other = distckpt.CheckpointManager(
        tf.train.Checkpoint(step=step), os.environ["DIRECTORY"] + "-2", 1, coordinator=coordinator
    )
    for _ in range(3):
        step.assign_add(1)
        print("saved", manager.save(), flush=True)
        assert other.save() is not None
        # Nobody waits for the others here: the chief may be at the last question already.
        assert [manager.agree_on([index, n]) for n in range(50)] == [[0, n] for n in range(50)]
    coordinator.close()


if __name__ == "__main__":
    main()
