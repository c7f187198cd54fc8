"""Programs that save and restore; nothing goes wrong in them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import tensorflow as tf
from mirrored_state import accumulate, digest, make_state

import distckpt


def save(
    strategy: Any,
    index: int,
    directory: str,
    seed: int = 0,
    saves: int = 1,
    max_to_keep: int | None = 3,
    number: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Makes a state and saves it `saves` times; returns what happened."""
    checkpoint = make_state(strategy, seed)
    manager = distckpt.CheckpointManager(
        checkpoint, directory, max_to_keep, options=distckpt.ManagerOptions(**options)
    )
    paths, seconds = [], []
    for _ in range(saves):
        checkpoint.step.assign_add(1)
        accumulate(strategy, checkpoint)
        started = time.monotonic()
        paths.append(manager.save(checkpoint_number=number))
        seconds.append(time.monotonic() - started)
    return {
        "paths": paths,
        "seconds": seconds,
        "digest": digest(checkpoint),
        "latest": manager.latest_checkpoint,
        "checkpoints": manager.checkpoints,
    }


def restore(strategy: Any, index: int, directory: str, **options: Any) -> dict[str, Any]:
    """Restores through a manager into a fresh state."""
    checkpoint = make_state(strategy, seed=999)
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, options=distckpt.ManagerOptions(**options)
    )
    try:
        path = manager.restore_or_initialize()
    except distckpt.errors.DistckptError as error:
        return {"error": type(error).__name__, "text": str(error)}
    with strategy.scope():
        total = float(checkpoint.total.read_value())
    return {
        "path": path,
        "digest": digest(checkpoint),
        "total": total,
        "counter": int(checkpoint.save_counter),
        "latest": manager.latest_checkpoint,
        "checkpoints": manager.checkpoints,
    }


def save_twice_same_number(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Saves number 7 twice, with different values and max_to_keep=1."""
    first = save(strategy, index, directory, seed=1, max_to_keep=1, number=7)
    second = save(strategy, index, directory, seed=2, max_to_keep=1, number=7)
    return {"first": first, "second": second}


def two_managers(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Three managers in one program: two in folders of their own, and two in the same folder."""
    checkpoint = make_state(strategy, 5)
    a = distckpt.CheckpointManager(checkpoint, directory + "/a", 2)
    b = distckpt.CheckpointManager(checkpoint, directory + "/b", 1)
    best = distckpt.CheckpointManager(checkpoint, directory + "/a", 1, checkpoint_name="best")
    paths = []
    for _ in range(3):
        checkpoint.step.assign_add(1)
        paths.append([a.save(), b.save(), best.save()])
    return {
        "paths": paths,
        "a": a.checkpoints,
        "b": b.checkpoints,
        "best": best.checkpoints,
        "digest": digest(checkpoint),
    }


def init_fn(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Every worker calls init_fn when there is no checkpoint, and only then."""
    checkpoint = make_state(strategy, 3)
    calls: list[int] = []
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, init_fn=lambda: calls.append(1), step_counter=checkpoint.step
    )
    first = manager.restore_or_initialize()
    before = len(calls)
    manager.save()
    second = manager.restore_or_initialize()
    return {"first": first, "before": before, "second": second, "after": len(calls)}


def interval(strategy: Any, index: int, directory: str) -> list[Any]:
    """checkpoint_interval must decide the same on all workers."""
    checkpoint = make_state(strategy, 3)
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, step_counter=checkpoint.step, checkpoint_interval=3
    )
    paths = []
    for _ in range(7):
        checkpoint.step.assign_add(1)
        paths.append(manager.save())
    return paths


def sizes(strategy: Any, index: int, directory: str, megabytes: int) -> dict[str, Any]:
    """Saves a state of one huge table and some smaller variables."""
    with strategy.scope():
        rows = megabytes * 1024 * 4
        table = tf.Variable(tf.random.stateless_uniform((rows, 64), seed=(1, 2)))
        rest = [tf.Variable(tf.zeros((500, 50 + i))) for i in range(5)]
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(table=table, rest=rest),
        directory,
        1,
        options=distckpt.ManagerOptions(durable=False),
    )
    return {"path": manager.save()}


def model_and_optimizer(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """A Keras 3 model and optimizer under the strategy: saved, overwritten, restored."""
    import keras

    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(3)])
        model.build((None, 200))
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    manager = distckpt.CheckpointManager(checkpoint, directory, 1)
    path = manager.save()
    want = [np.array(v) for v in model.variables]
    for v in model.variables:
        v.assign(np.zeros(v.shape))
    manager.restore_or_initialize()
    same = all(np.array_equal(np.array(v), w) for v, w in zip(model.variables, want, strict=True))
    return {"path": path, "same": same}


def worker_state(
    strategy: Any, index: int, directory: str, draw: int, save: bool, asynchronous: bool = False
) -> dict[str, Any]:
    """Restores, draws from an iterator and a generator of its own, saves, draws more."""
    tf.random.set_seed(7)  # an earlier program of this process may have set another
    numbers = tf.data.Dataset.range(1000 * index, 1000 * index + 50)
    iterator = iter(numbers.shuffle(50, seed=index).repeat().batch(3))
    generator = tf.random.Generator.from_seed(index)
    own = tf.train.Checkpoint(iterator=iterator, generator=generator)
    options = distckpt.ManagerOptions(enable_async=asynchronous)
    manager = distckpt.CheckpointManager(
        make_state(strategy, 3), directory, 2, worker_checkpoint=own, options=options
    )

    def drawn(count: int) -> list[Any]:
        return [
            (next(iterator).numpy().tolist(), generator.normal([2]).numpy().tolist())
            for _ in range(count)
        ]

    path = manager.restore_or_initialize()
    before = drawn(draw)
    if save:
        manager.save()
    after = drawn(4)
    manager.sync()
    return {"restored": path, "before": before, "after": after}


def of_first_replicas(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Saves and restores variables that have a different value on each worker."""
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    kinds = (tf.VariableSynchronization.ON_READ, tf.VariableSynchronization.ON_WRITE)
    with strategy.scope():
        variables = [
            tf.Variable(0.0, synchronization=kind, aggregation=first)
            for kind in kinds
            for _ in range(4)
        ]
        large = [
            tf.Variable(tf.zeros([300, 100]), synchronization=kind, aggregation=first)
            for kind in kinds
        ]

    @tf.function
    def assign() -> None:
        def replica() -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group + 1
            for variable in variables + large:
                variable.assign(tf.fill(variable.shape, tf.cast(number, tf.float32)))

        strategy.run(replica)

    assign()
    checkpoint = tf.train.Checkpoint(small=variables, large=large)
    options = distckpt.ManagerOptions(check_replicas="error")
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    held = [float(tf.reduce_max(v.values[0])) for v in variables + large]
    path = manager.save()
    assign()
    manager.restore_or_initialize()
    restored = [float(tf.reduce_max(v.values[0])) for v in variables + large]
    return {"path": path, "held": held, "restored": restored}
