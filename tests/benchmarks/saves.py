"""The ways of saving that are compared, as one worker does them. Imports TensorFlow."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from actions import ActionTimes
from state import Model, make_model

import distckpt


class Distckpt:
    """``distckpt.CheckpointManager``."""

    def __init__(self, model: Model, directory: Path, keep: int | None, **options: Any) -> None:
        self._manager = distckpt.CheckpointManager(
            tf.train.Checkpoint(model=model),
            directory,
            max_to_keep=keep,
            options=distckpt.ManagerOptions(**options),
        )

    def save(self) -> None:
        self._manager.save()

    def clean_up(self) -> None:
        pass


class Recipe:
    """The tutorial "Custom training loop with Keras and MultiWorkerMirroredStrategy".

    Every worker saves everything: the chief to where it belongs, the others to directories of
    their own, which they remove afterwards.
    """

    def __init__(self, model: Model, directory: Path, keep: int | None, worker: int) -> None:
        folder = directory if worker == 0 else directory / f"workertemp_{worker}"
        self._folder = str(folder / "ckpt")
        self._worker = worker
        tf.io.gfile.makedirs(str(folder))
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model), self._folder, max_to_keep=keep
        )

    def save(self) -> None:
        self._manager.save()

    def clean_up(self) -> None:
        if self._worker != 0:
            tf.io.gfile.rmtree(self._folder)


class Floor:
    """Plainly writes this worker's share of the bytes; nothing is faster."""

    def __init__(self, nbytes: int, directory: Path, worker: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"ckpt-share.data-{worker:05d}"
        self._bytes = os.urandom(2**20) * (nbytes // 2**20) + os.urandom(nbytes % 2**20)

    def save(self) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        left = memoryview(self._bytes)
        while left:
            left = left[os.write(file, left) :]
        os.close(file)

    def clean_up(self) -> None:
        pass


class Saves:
    """One worker: its state, and every way to save it.

    Its methods are called by name on all workers, see `workers.Workers.call`.
    """

    def __init__(self, strategy: Any, worker: int, workers: int) -> None:
        self._strategy = strategy
        self._worker = worker
        self._workers = workers
        self._times = ActionTimes()
        self._ways: dict[str, Distckpt | Recipe | Floor] = {}

    def prepare(
        self, directory: str, state: str, megabytes: int, variables: int, keep: int | None
    ) -> int:
        """Makes the state and a manager for each way; returns the size of the state in bytes."""
        model = make_model(self._strategy, state, megabytes, variables)
        folder = Path(directory)
        self._ways = {
            "distckpt": Distckpt(model, folder / "distckpt", keep, durable=False),
            "durable": Distckpt(model, folder / "durable", keep, durable=True),
            "recipe": Recipe(model, folder / "recipe", keep, self._worker),
            "floor": Floor(model.nbytes // self._workers, folder / "floor", self._worker),
        }
        return model.nbytes

    def prepare_checks(
        self, directory: str, state: str, megabytes: int, variables: int, every: list[int]
    ) -> int:
        """Makes the state, and managers that compare the workers' copies of one entry in so many.

        Those of 0 compare nothing. Returns the size of the state in bytes.
        """
        model = make_model(self._strategy, state, megabytes, variables)
        for number in every:
            check = {"check_replicas": "error", "check_replicas_every": number} if number else {}
            self._ways[str(number)] = Distckpt(
                model, Path(directory) / str(number), 1, durable=False, **check
            )
        return model.nbytes

    def save(self, way: str, start_at: float) -> dict[str, Any]:
        """Saves; `start_at` is the common moment to begin, of `time.monotonic`."""
        saving = self._ways[way]
        self._times.log.clear()
        time.sleep(max(0.0, start_at - time.monotonic()))
        started = time.monotonic()
        saving.save()
        ended = time.monotonic()
        answer: dict[str, Any] = {"started": started, "ended": ended}
        if self._times.log:
            answer["actions"] = self._times.seconds(started, ended)
            if self._worker == 0:
                answer["agreement"] = self._times.agreement_and_commit()
        return answer

    def clean_up(self, way: str) -> float:
        """Does what the way still needs after a save; returns the seconds that took."""
        started = time.monotonic()
        self._ways[way].clean_up()
        return time.monotonic() - started
