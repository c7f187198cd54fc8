"""A state of variables that a strategy mirrors, and how two such states are compared."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf


def _values(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_state(strategy: Any, seed: int = 0) -> tf.train.Checkpoint:
    """A state with mirrored variables of many kinds, an ON_READ variable, and plain ones."""
    with strategy.scope():
        big = tf.Variable(_values(seed, (1003, 64)))
        small = [tf.Variable(_values(seed + i + 1, (7, 3))) for i in range(5)]
        medium = [tf.Variable(_values(seed + i + 10, (301, 33))) for i in range(6)]
        half = tf.Variable(tf.cast(_values(seed + 30, (40, 50)), tf.float16))
        whole = tf.Variable(tf.range(10000, dtype=tf.int64))
        total = tf.Variable(
            0.0,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )
        step = tf.Variable(0, dtype=tf.int64)
    text = tf.Variable("plain")
    return tf.train.Checkpoint(
        big=big,
        small=small,
        medium=medium,
        half=half,
        whole=whole,
        total=total,
        step=step,
        text=text,
    )


def accumulate(strategy: Any, checkpoint: tf.train.Checkpoint) -> None:
    """Each replica adds its own number to the ON_READ variable."""

    @tf.function
    def add() -> None:
        def replica() -> None:
            context = tf.distribute.get_replica_context()
            number = tf.cast(context.replica_id_in_sync_group, tf.float32) + 1.0
            checkpoint.total.assign_add(number)

        strategy.run(replica)

    add()


def digest(checkpoint: tf.train.Checkpoint) -> dict[str, str]:
    """Every value as a hash."""
    found = {}
    for name, value in [
        ("big", checkpoint.big),
        *[(f"small{i}", v) for i, v in enumerate(checkpoint.small)],
        *[(f"medium{i}", v) for i, v in enumerate(checkpoint.medium)],
        ("half", checkpoint.half),
        ("whole", checkpoint.whole),
        ("step", checkpoint.step),
        ("text", checkpoint.text),
    ]:
        array = tf.convert_to_tensor(value).numpy()
        data = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
        found[name] = hashlib.sha256(data).hexdigest()[:16]
    return found


def barrier(strategy: Any) -> None:
    """Waits for all workers, by a collective."""

    @tf.function
    def reduce() -> Any:
        ones = strategy.run(lambda: tf.constant(1.0))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None)

    reduce()
