"""What is measured, in a process that has imported the distckpt of one commit.

Each function prepares a measurement, and returns what is measured. It uses the public API, as a
program does, so that it can run with old commits, too.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

import distckpt
from regression import counting

_WAIT = 100.0  # seconds, for the threads that are workers


class Sizes(NamedTuple):
    """How much is saved."""

    small: int = 10_000  # variables of 10 floats
    big: int = 16  # variables
    big_bytes: int = 128 * 2**20  # all of them together
    shared: int = 1_000  # variables of 10 floats on each of two workers
    checkpoints: int = 200


class Prepared(NamedTuple):
    """What is measured next.

    Attributes:
      call: What is called.
      saved_in: The folder whose newest checkpoint is the result; None if there is none.
      counts: What was counted while preparing.
      repeat: How often to prepare and call it: more than once if one call is short.
    """

    call: Callable[[], object]
    saved_in: Path | None = None
    counts: dict[str, int] = {}  # noqa: RUF012 - nobody changes it
    repeat: int = 1


class Bench:
    """The states and directories that the measurements use, made when they are first needed.

    Args:
      root: An empty folder.
      sizes: How much is saved.
    """

    def __init__(self, root: Path, sizes: Sizes) -> None:
        self._root = root
        self.sizes = sizes
        self._last: dict[str, Path] = {}
        self._numbers = itertools.count()

    def folder(self, name: str) -> Path:
        """Returns a new folder, and removes the last one that was made by this name.

        The path is new, too: a process remembers which directories it has owned.
        """
        if last := self._last.get(name):
            shutil.rmtree(last)
        path = self._last[name] = self._root / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    @functools.cached_property
    def small(self) -> tf.train.Checkpoint:
        """Many small variables."""
        return variables(self.sizes.small, 10)

    @functools.cached_property
    def big(self) -> tf.train.Checkpoint:
        """A few large variables."""
        return variables(self.sizes.big, self.sizes.big_bytes // 4 // self.sizes.big)

    @functools.cached_property
    def shared(self) -> list[tf.train.Checkpoint]:
        """The state of each of two workers."""
        return [variables(self.sizes.shared, 10) for _ in range(2)]

    @functools.cached_property
    def saved_small(self) -> Path:
        """A directory with a checkpoint of the small variables."""
        return self._saved("saved-small", self.small)

    @functools.cached_property
    def saved_big(self) -> Path:
        """A directory with a checkpoint of the large variables."""
        return self._saved("saved-big", self.big)

    @functools.cached_property
    def unchanged(self) -> distckpt.CheckpointManager:
        """A manager that has saved the small variables."""
        manager = distckpt.CheckpointManager(self.small, self.folder("next"), 1)
        manager.save()
        return manager

    @functools.cached_property
    def growing(self) -> tuple[list[tf.Variable], distckpt.CheckpointManager]:
        """Other small variables, in the list that is saved, and a manager that has saved them."""
        checkpoint = variables(self.sizes.small, 10)
        manager = distckpt.CheckpointManager(checkpoint, self.folder("growing"), 1)
        manager.save()
        return checkpoint.module.weights, manager

    @functools.cached_property
    def many(self) -> Path:
        """A directory of many checkpoints, each of four variables."""
        folder, checkpoint = self.folder("many"), variables(4, 10)
        options = distckpt.ManagerOptions(durable=False)
        manager = distckpt.CheckpointManager(checkpoint, folder, None, options=options)
        for _ in range(self.sizes.checkpoints):
            manager.save()
        return folder

    def _saved(self, name: str, checkpoint: tf.train.Checkpoint) -> Path:
        folder = self.folder(name)
        distckpt.CheckpointManager(checkpoint, folder, 1).save()
        return folder


def variables(count: int, elements: int) -> tf.train.Checkpoint:
    """Returns a program's state: `count` variables of `elements` floats."""
    module = tf.Module()
    module.weights = [tf.Variable(tf.fill((elements,), float(n))) for n in range(count)]
    return tf.train.Checkpoint(module=module)


def first_save(bench: Bench) -> Prepared:
    """The first save of a manager."""
    folder = bench.folder("first")
    return Prepared(distckpt.CheckpointManager(bench.small, folder, 1).save, folder)


def next_save(bench: Bench) -> Prepared:
    """A later save, which deletes the checkpoint before."""
    return Prepared(bench.unchanged.save, Path(bench.unchanged.directory))


def save_after_change(bench: Bench) -> Prepared:
    """A save after the program has made another variable."""
    weights, manager = bench.growing
    weights.append(tf.Variable([1.0] * 10))
    return Prepared(manager.save, Path(manager.directory))


def restore_small(bench: Bench) -> Prepared:
    """Restoring with a new manager."""
    return _restore(bench.small, bench.saved_small)


def save_big(bench: Bench) -> Prepared:
    """The first save of many bytes."""
    folder = bench.folder("big")
    return Prepared(distckpt.CheckpointManager(bench.big, folder, 1).save, folder, repeat=3)


def restore_big(bench: Bench) -> Prepared:
    """Restoring many bytes."""
    return _restore(bench.big, bench.saved_big, repeat=3)


def constructor(bench: Bench) -> Prepared:
    """A new manager of a directory with many checkpoints."""
    folder, checkpoint = bench.many, variables(4, 10)
    make = functools.partial(distckpt.CheckpointManager, checkpoint, folder, None)
    return Prepared(make, repeat=3)


def two_workers(bench: Bench) -> Prepared:
    """The first save of two workers, which are threads."""
    from distckpt.coordination.in_process import InProcessJob

    folder, job = bench.folder("shared"), InProcessJob(2)
    managers = [
        distckpt.CheckpointManager(checkpoint, folder, 1, coordinator=job.coordinator(index))
        for index, checkpoint in enumerate(bench.shared)
    ]
    return Prepared(functools.partial(_together, [m.save for m in managers]), folder, repeat=5)


def ls(bench: Bench) -> Prepared:
    """`distckpt ls`, from the start of Python to its end."""
    command = [sys.executable, "-m", "distckpt", "ls", str(bench.many)]
    run = functools.partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    return Prepared(run, counts=_traced(tuple(command), bench.many), repeat=3)


def named(sizes: Sizes) -> dict[str, Callable[[Bench], Prepared]]:
    """Returns all measurements by their names."""
    small = f"{sizes.small:,} variables"
    big = f"{sizes.big_bytes / 2**20:.0f} MiB in {sizes.big} variables"
    many = f"{sizes.checkpoints} checkpoints"
    return {
        f"first save, {small}": first_save,
        f"next save, {small}": next_save,
        f"save after a change, {small}": save_after_change,
        f"restore, {small}": restore_small,
        f"save, {big}": save_big,
        f"restore, {big}": restore_big,
        f"constructor, {many}": constructor,
        f"save, 2 workers of {sizes.shared:,} variables": two_workers,
        f"distckpt ls, {many}": ls,
    }


@functools.cache
def _traced(command: tuple[str, ...], folder: Path) -> dict[str, int]:
    return counting.system_calls(command, folder)


def _restore(checkpoint: tf.train.Checkpoint, folder: Path, repeat: int = 1) -> Prepared:
    manager = distckpt.CheckpointManager(checkpoint, folder, 1)
    return Prepared(manager.restore_or_initialize, repeat=repeat)


def _together(calls: list[Callable[[], Any]]) -> None:
    """Calls all of them at the same time, each on a thread."""
    errors: list[BaseException] = []

    def run(call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_WAIT)
    if errors:
        raise errors[0]
    if any(thread.is_alive() for thread in threads):
        raise TimeoutError(f"a worker has not saved within {_WAIT:.0f} s")


def newest(folder: Path) -> Path:
    """Returns the prefix of the newest checkpoint in `folder`."""
    found = tf.train.latest_checkpoint(os.fspath(folder))
    if found is None:
        raise FileNotFoundError(f"no checkpoint in {folder.name}")
    return Path(found)
