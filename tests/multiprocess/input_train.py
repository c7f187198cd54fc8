"""A training program that logs which examples each step has consumed, for tests that kill it.

Run by `LocalCluster`. Environment: DIRECTORY, STEPS, LOCAL (how many replicas each worker has), LOG
(a folder; each worker appends a line to a file of its own for every step: its number and, for each
replica, the examples of the indexed input and those of the worker's own). It saves after every
third step, and after a restart goes on from the last checkpoint.

A CPU has one replica under MultiWorkerMirroredStrategy. Tests of several make TensorFlow count the
parts of a divided CPU, by a private method of its own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy as collective

import distckpt

SIZE, BATCH, SEED = 23, 8, 11  # of the indexed input
OWN = 13  # examples of each worker's own, which repeat
SAVE_EVERY = 3


def divide_cpu(parts: int) -> None:
    """Gives this process so many replicas; before all other use of TensorFlow."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * parts
    )

    def devices(self, cluster_resolver, worker_device):
        return tuple(f"{worker_device}/device:CPU:{i}" for i in range(parts)), "CPU"

    collective.CollectiveAllReduceExtended._initialize_local_devices = devices


def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
    """A shuffled, repeated, batched dataset of this worker's own, of every epoch another order."""
    first = 100 * (context.input_pipeline_id + 1)
    numbers = tf.data.Dataset.range(first, first + OWN).shuffle(5, seed=SEED)
    return numbers.repeat().batch(2, drop_remainder=True).prefetch(4)


def indexed(indices: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """The examples are their indices."""
    return indices.prefetch(4)


def main() -> None:
    distckpt.wait_for_workers()
    divide_cpu(int(os.environ["LOCAL"]))
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    with strategy.scope():
        step = tf.Variable(0, dtype=tf.int64)
        total = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.SUM)
    both = {
        "indexed": distckpt.IndexedInput(SIZE, BATCH, indexed, strategy=strategy, seed=SEED),
        "own": distckpt.WorkerInput(own, strategy),
    }
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(step=step, total=total),
        os.environ["DIRECTORY"],
        2,
        worker_checkpoint=tf.train.Checkpoint(**both),
    )

    def replica(examples, mine):
        total.assign_add(tf.reduce_sum(examples))  # a collective: nobody runs ahead
        missing = BATCH - tf.shape(examples)[0]
        return tf.concat([tf.pad(examples, [[0, missing]], constant_values=-1), mine], axis=0)

    @tf.function
    def train():
        """Returns what each step and replica has read: [steps, replicas, BATCH + 2]."""
        read = tf.TensorArray(tf.int64, SAVE_EVERY)
        for number in tf.range(SAVE_EVERY):
            values = strategy.run(replica, args=(next(both["indexed"]), next(both["own"])))
            read = read.write(number, tf.stack(strategy.experimental_local_results(values)))
            step.assign_add(1)
        return read.stack()

    manager.restore_or_initialize()
    print("resumed", int(step.numpy()), "of", strategy.num_replicas_in_sync, flush=True)
    with Path(os.environ["LOG"], f"worker-{index}").open("a") as log:
        while int(step.numpy()) < int(os.environ["STEPS"]):
            before = int(step.numpy())
            for number, values in enumerate(train().numpy().tolist(), start=before):
                examples = [[n for n in value[:BATCH] if n >= 0] for value in values]
                mine = [value[BATCH:] for value in values]
                log.write(json.dumps([number, examples, mine]) + "\n")
            log.flush()
            manager.save()


if __name__ == "__main__":
    main()
