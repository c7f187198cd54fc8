"""One task of a parameter-server cluster: a server, or the coordinator, which saves."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import tensorflow as tf

import distckpt

STRING = "a string on the coordinator"


def serve() -> None:
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=resolver.task_type,
        task_index=resolver.task_id,
        protocol="grpc",
    )
    server.join()


def make_state(strategy):
    with strategy.scope():
        table = tf.Variable(tf.random.stateless_uniform((1000, 64), seed=(1, 1)))
        bias = tf.Variable(tf.range(50, dtype=tf.int64))
        step = tf.Variable(0, dtype=tf.int64)
    return tf.train.Checkpoint(table=table, bias=bias, step=step, note=tf.Variable(STRING))


def coordinate(directory: str) -> None:
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    partitioner = tf.distribute.experimental.partitioners.FixedShardsPartitioner(2)
    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    checkpoint = make_state(strategy)
    manager = distckpt.CheckpointManager(checkpoint, directory, 2)
    paths = []
    for _ in range(3):
        coordinator.schedule(tf.function(lambda: checkpoint.step.assign_add(1)))
        coordinator.join()
        paths.append(manager.save())
    paths.append(manager.save(checkpoint_number=3))  # the same number again
    want = tf.concat([v.read_value() for v in checkpoint.table.variables], 0).numpy()
    for v in checkpoint.table.variables:
        v.assign(tf.zeros_like(v))
    checkpoint.step.assign(0)
    restored = manager.restore_or_initialize()
    got = tf.concat([v.read_value() for v in checkpoint.table.variables], 0).numpy()
    devices = sorted({v.device for v in checkpoint.table.variables})
    print(
        "RESULT "
        + json.dumps(
            {
                "paths": paths,
                "restored": restored,
                "equal": bool(np.array_equal(want, got)),
                "step": int(checkpoint.step.numpy()),
                "checkpoints": manager.checkpoints,
                "devices": devices,
                "sum": float(want.sum()),
            }
        ),
        flush=True,
    )
    os._exit(0)


if __name__ == "__main__":
    if json.loads(os.environ["TF_CONFIG"])["task"]["type"] == "chief":
        coordinate(sys.argv[1])
    else:
        serve()
