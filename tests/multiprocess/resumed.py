"""A training that reads the same whatever befalls it: for tests/multiprocess/test_resume.py.

    resumed.py DIRECTORY STEPS

Each worker has two inputs: one of examples by index, whose place is part of the common state; and
one of its own, a shuffled and repeated dataset. It saves every third step, and prints for each step
the examples that it has read.
"""

from __future__ import annotations

import sys

import tensorflow as tf

import distckpt

SIZE, BATCH = 53, 8


def examples(indices: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    return indices.map(lambda batch: batch).prefetch(3)


def own_examples(context: tf.distribute.InputContext) -> tf.data.Dataset:
    mine = tf.data.Dataset.range(31).shard(context.num_input_pipelines, context.input_pipeline_id)
    return mine.shuffle(7, seed=3).repeat().batch(3).prefetch(2)


def main() -> None:
    directory, steps = sys.argv[1], int(sys.argv[2])
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        total = tf.Variable(0, dtype=tf.int64)
        step = tf.Variable(0, dtype=tf.int64)
    indexed = distckpt.IndexedInput(SIZE, BATCH, examples, strategy=strategy, seed=5)
    own = distckpt.WorkerInput(own_examples, strategy)
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(total=total, step=step, indexed=indexed),
        directory,
        3,
        worker_checkpoint=tf.train.Checkpoint(own=own),
    )
    manager.restore_or_initialize()
    print(f"START {int(step.numpy())} of {manager.worker_count}", flush=True)

    @tf.function
    def train() -> tuple:
        batch, others = next(indexed), next(own)

        def replica(batch: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(batch) + tf.reduce_sum(others)

        sums = strategy.run(replica, args=(batch, others))
        total.assign_add(strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None))
        return batch, others

    while int(step.numpy()) < steps:
        batch, others = train()
        step.assign_add(1)
        for name, values in (("INDEXED", batch), ("OWN", others)):
            (mine,) = strategy.experimental_local_results(values)
            print(name, int(step.numpy()), *mine.numpy().tolist(), flush=True)
        if int(step.numpy()) % 3 == 0:
            manager.save()
    print("FINISHED", flush=True)


if __name__ == "__main__":
    main()
