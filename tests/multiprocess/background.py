"""Programs whose saves run in the background."""

from __future__ import annotations

import time
from typing import Any

import tensorflow as tf
from mirrored_state import accumulate, digest, make_state

import distckpt


def async_while_training(
    strategy: Any, index: int, directory: str, saves: int, on_read: bool
) -> dict[str, Any]:
    """Trains by collectives without a pause during `saves` asynchronous saves.

    With `on_read`, one variable must be read by a collective when the state is held.
    """
    checkpoint = make_state(strategy, 4)
    if not on_read:
        del checkpoint.total
    with strategy.scope():
        weights = tf.Variable(tf.zeros([40, 30]))
    checkpoint.weights = weights

    @tf.function
    def train() -> Any:
        def replica() -> Any:
            context = tf.distribute.get_replica_context()
            mine = tf.cast(context.replica_id_in_sync_group + 1, tf.float32)
            gradient = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.fill([40, 30], mine))
            weights.assign_add(gradient)
            checkpoint.big.assign_add(tf.ones_like(checkpoint.big))
            return mine

        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica), axis=None)

    options = distckpt.ManagerOptions(enable_async=True, durable=False)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    started = time.monotonic()
    saved, steps_in_flight = {}, 0
    for _ in range(saves):
        for _ in range(3):
            train()
            steps_in_flight += manager._operations.background.busy
        if on_read:
            accumulate(strategy, checkpoint)
        checkpoint.step.assign_add(1)
        if manager.save() in [f"{directory}/ckpt-{saves - back}" for back in range(3)]:
            name = f"ckpt-{int(checkpoint.save_counter)}"
            saved[name] = {**digest(checkpoint), "weights": weights.numpy().tobytes().hex()[:32]}
    for _ in range(10):
        train()
    manager.sync()
    return {
        "saved": saved,
        "checkpoints": manager.checkpoints,
        "steps_in_flight": steps_in_flight,
        "seconds": time.monotonic() - started,
    }


def restored_by_plain(strategy: Any, index: int, path: str) -> dict[str, str]:
    """Restores what `async_while_training` has saved, with TensorFlow alone."""
    checkpoint = make_state(strategy, 999)
    with strategy.scope():
        checkpoint.weights = tf.Variable(tf.ones([40, 30]))
    tf.train.Checkpoint.restore(checkpoint, path).expect_partial()
    return {
        **digest(checkpoint),
        "weights": checkpoint.weights.numpy().tobytes().hex()[:32],
    }


def policies(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Calls save() in every step; workers differ in their clocks and in their background saves."""
    checkpoint = make_state(strategy, 3)
    options = distckpt.ManagerOptions(
        enable_async=True,
        when_busy="skip",
        save_policy=distckpt.policies.EverySteps(7) | distckpt.policies.EverySeconds(0.2),
    )
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, step_counter=checkpoint.step, options=options
    )
    saved = []
    for step in range(60):
        checkpoint.step.assign_add(1)
        time.sleep(0.02 if index == 0 else 0.001 * (step % 3))
        if path := manager.save():
            saved.append((step, path))
    manager.sync()
    return {"saved": saved, "skipped": manager.skipped_saves, "checkpoints": manager.checkpoints}
