"""A training that is preempted: what each worker of tests/multiprocess/test_preemption.py runs.

    preempted.py DIRECTORY STEPS [no-time | no-space | watch FILE]

It saves every tenth step in the background, and prints each step with what it has come to.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import time

import tensorflow as tf

import distckpt
from distckpt.preemption import time_budget


def main() -> None:
    directory, steps, *mode = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    worker = strategy.cluster_resolver.task_id or 0
    with strategy.scope():
        weights = tf.Variable(tf.zeros([64, 64], tf.float64))
        step = tf.Variable(0, dtype=tf.int64)
    options = distckpt.ManagerOptions(enable_async=True, save_deadline=30.0)
    state = tf.train.Checkpoint(weights=weights, step=step)
    manager = distckpt.CheckpointManager(state, directory, 3, options=options)
    watcher = None
    if mode[:1] == ["watch"]:
        watcher = lambda: os.path.exists(mode[1])  # noqa: E731
    handler = distckpt.handle_preemption(manager, termination_watcher=watcher)
    print(f"RESTORED {manager.latest_checkpoint} at {int(step.numpy())}", flush=True)
    if mode == ["no-time"]:
        time_budget.MARGIN = 1e6
    if mode == ["no-space"] and worker == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))

    @tf.function
    def train(number: tf.Tensor) -> None:
        def value() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.sin(tf.cast(number, tf.float64) + tf.cast(replica, tf.float64))

        total = strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(value), axis=None)
        weights.assign_add(tf.fill([64, 64], total))

    while int(step.numpy()) < int(steps):
        number = int(step.numpy()) + 1
        train(tf.constant(number))
        step.assign(number)
        print(f"STEP {number} {float(weights.numpy()[0, 0])!r}", flush=True)
        if number % 10 == 0:
            manager.save(checkpoint_number=number)
        handler.save_checkpoint_if_preempted(checkpoint_number=number)
        time.sleep(0.02)
    manager.sync()
    manager.leave()
    print("FINISHED", flush=True)


main()
