"""`CheckpointCallback` on two workers, which are threads here."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest
import tensorflow as tf

import distckpt
from distckpt.coordination.in_process import InProcessJob
from distckpt.keras.progress import best_in

from .training import FEW, REPLICAS, FailsAt, Scores, few, fit, kept, make_model


def train_in_two(directory, scores, before=(), after=(), **arguments):
    """Trains one epoch in each `fit`; the program catches what a callback raises on one worker.

    Args:
      directory: Where both save.
      scores: The chief's metric of each epoch. The other worker's must not matter.
      before: The other worker's callbacks before the one that saves.
      after: Its callbacks after that one.
      arguments: For the callback that saves.

    Returns:
      What each worker has caught.
    """
    job, together = InProcessJob(2), threading.Barrier(2)
    models, errors = [make_model() for _ in range(2)], ([], [])

    def work(index):
        manager = distckpt.CheckpointManager(
            tf.train.Checkpoint(),
            directory,
            None,
            coordinator=job.coordinator(index),
            options=distckpt.ManagerOptions(durable=False, save_deadline=100, restore_deadline=3),
        )
        best = distckpt.keras.CheckpointCallback(
            manager, monitor="score", mode="min", save_best_only=True, **arguments
        )
        callbacks = [Scores(*scores), best]
        if index:
            callbacks = [*before, Scores(*(-score for score in scores)), best, *after]
        for epoch in range(len(scores)):
            together.wait(200)
            trained = int(models[index].optimizer.iterations.numpy())
            while int(models[index].optimizer.iterations.numpy()) == trained:
                try:
                    fit(models[index], few(), *callbacks, initial_epoch=epoch, epochs=epoch + 1)
                except Exception as error:
                    errors[index].append((epoch, error))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, index) for index in range(2)]:
            done.result(timeout=400)
    return errors


@pytest.mark.skipif(REPLICAS > 1, reason="each worker would have the same devices")
@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize(
    ("method", "at"),
    [("on_epoch_end", 0), ("on_train_batch_end", FEW - 1), ("on_train_batch_begin", 0)],
)
def test_an_error_of_another_callback_on_one_worker_alone(tmp_path, method, at, restore):
    """The chief saves nothing in that epoch; all later epochs are saved as without the error."""
    fails, nan = FailsAt(method, at), float("nan")
    place = "after" if method == "on_train_batch_begin" else "before"
    scores = [nan, 4, 6, 3]
    errors = train_in_two(tmp_path, scores, **{place: [fails]}, restore=restore)
    names = [[(epoch, type(error).__name__) for epoch, error in caught] for caught in errors]
    assert names == [[], [(0, "Interrupted")]], errors
    found = kept(tmp_path)
    assert [score for _, _, score in found] == [4, 3]
    for name, _, score in found:
        assert best_in(str(tmp_path / name), "score (min)") == score
