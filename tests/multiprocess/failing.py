"""Programs in which something goes wrong, on one worker or on all."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from mirrored_state import barrier, make_state
from outcomes import caught, listening

import distckpt
from distckpt.storage.local import LocalStorage


def other_model_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 tracks one more variable; then all workers track the same ones again."""
    checkpoint = make_state(strategy, 3)
    if index == 1:
        checkpoint.extra = tf.Variable([1.0, 2.0])
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    bad = caught(manager.save)
    if index == 1:
        del checkpoint.extra
    good = caught(manager.save)
    return {"bad": bad, "good": good, "checkpoints": manager.checkpoints}


def other_number_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 asks for another number."""
    manager = distckpt.CheckpointManager(make_state(strategy, 3), directory, 3)
    return caught(lambda: manager.save(checkpoint_number=10 + (index == 1)))


def other_directory_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 gets another directory, as in TensorFlow's tutorial."""
    mine = directory if index != 1 else directory + "/workertemp_1"
    manager = distckpt.CheckpointManager(make_state(strategy, 3), mine, 3)
    return {"save": caught(manager.save)}


def restore_other_directory_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 restores from another directory."""
    mine = directory if index != 1 else directory + "/other"
    manager = distckpt.CheckpointManager(make_state(strategy, 3), mine, 3)
    return caught(manager.restore_or_initialize)


def directory_not_shared(strategy: Any, index: int, folders: list[str]) -> dict[str, Any]:
    """The same path leads to a different folder on each worker."""
    before = os.getcwd()
    os.chdir(folders[index])
    try:
        manager = distckpt.CheckpointManager(make_state(strategy, 3), "/proc/self/cwd/run", 3)
        return caught(manager.save)
    finally:
        os.chdir(before)


def one_never_comes(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 comes too late to a save; the next call saves only if all count the same calls."""
    checkpoint = make_state(strategy, 3)
    options = distckpt.ManagerOptions(save_deadline=4.0)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    if index == 1:
        time.sleep(
            6.0
        )  # the other workers have given up the first call, and still wait in the second
    late = caught(manager.save)
    again = caught(manager.save)
    return {"late": late, "again": again, "checkpoints": manager.checkpoints}


def slow_disk_on_one(strategy: Any, index: int, directory: str, seconds: float) -> dict[str, Any]:
    """Worker 1's disk takes `seconds` to flush each file; in the second save it is fast again."""
    checkpoint = make_state(strategy, 3)
    options = distckpt.ManagerOptions(save_deadline=4.0)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    flush = LocalStorage.flush

    def slowly(self: LocalStorage, path: str) -> None:
        time.sleep(seconds)
        flush(self, path)

    began = time.monotonic()
    with listening() as said:
        LocalStorage.flush = slowly if index == 1 else flush
        try:
            first = caught(manager.save)
        finally:
            LocalStorage.flush = flush
    if index != 1:  # worker 1 learns that the save has failed when its file is gone
        time.sleep(max(0.0, began + seconds + 0.5 - time.monotonic()))
    return {"first": first, "said": said, "again": caught(manager.save)}


def one_deviates(
    strategy: Any, index: int, directory: str, where: int, in_background: bool
) -> dict[str, Any]:
    """Worker `where` holds another value of `medium/3`; all save with each of the modes."""
    checkpoint = make_state(strategy, 3)
    mine = checkpoint.medium[3].values[0]  # this worker's replica; the strategy does not notice
    original = mine.read_value()
    found: dict[str, Any] = {}
    with listening() as said:
        for mode in ("error", "warn", "off", "mended"):
            check = "error" if mode == "mended" else mode
            options = distckpt.ManagerOptions(check_replicas=check, enable_async=in_background)
            manager = distckpt.CheckpointManager(checkpoint, directory, 9, options=options)
            if index == where:
                mine.assign(original if mode == "mended" else original + 1.0)
            said.clear()
            found[mode] = caught(lambda manager=manager: (manager.save(), manager.sync())[0])
            found[mode]["said"] = list(said)
    return found


def restore_without_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 comes late to a restore."""
    options = distckpt.ManagerOptions(restore_deadline=2.0)
    manager = distckpt.CheckpointManager(make_state(strategy, 3), directory, 3, options=options)
    if index == 1:
        time.sleep(4.0)
    return caught(manager.restore_or_initialize)


class _Angry(tf.train.experimental.PythonState):
    """State that cannot be read."""

    raised = 0.0

    def serialize(self) -> str:
        self.raised = time.monotonic()
        raise RuntimeError("this state cannot be read")

    def deserialize(self, text: str) -> None:
        raise RuntimeError("nor restored")


def capture_fails_on_one(strategy: Any, index: int, directory: str, where: int) -> dict[str, Any]:
    """One worker raises while its state is read; the other workers must learn of it at once."""
    checkpoint = make_state(strategy, 3)
    if index == where:
        checkpoint.angry = _Angry()
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    text = trace = ""
    try:
        manager.save()
    except distckpt.errors.DistckptError as error:
        text, trace = f"{type(error).__name__}: {error}", error.trace
    heard = time.monotonic()  # all processes of a machine share this clock
    raised = 0.0
    if index == where:
        raised = checkpoint.angry.raised
        del checkpoint.angry
    times = {"heard": heard, "raised": raised}
    return {"text": text, "trace": trace, **times, "good": caught(manager.save)}


@contextlib.contextmanager
def file_size_limit(limit: int | None) -> Iterator[None]:
    """Lets this process write at most `limit` bytes into a file; as many as it likes if None."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, before if limit is None else (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def file_size_limit_on_one(strategy: Any, index: int, directory: str, limit: int) -> dict[str, Any]:
    """Worker 1 cannot write more than `limit` bytes into a file in the second of three saves."""
    checkpoint = make_state(strategy, 3)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    good = caught(manager.save)
    with file_size_limit(limit if index == 1 else None):
        bad = caught(manager.save)
    listed = manager.checkpoints
    return {"good": good, "bad": bad, "listed": listed, "again": caught(manager.save)}


def fill_up(strategy: Any, index: int, directory: str, filler: str) -> dict[str, Any]:
    """Saves, then with a full file system, then with free space again."""
    checkpoint = make_state(strategy, 3)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    good = caught(manager.save)
    if index == 0:
        with open(filler, "wb") as file:
            try:
                while file.write(bytes(1 << 16)):
                    file.flush()
            except OSError:
                os.truncate(filler, max(0, os.path.getsize(filler) - (1 << 16)))
    barrier(strategy)
    bad = caught(manager.save)
    listed = manager.checkpoints
    barrier(strategy)
    if index == 0:
        os.remove(filler)
    barrier(strategy)
    return {"good": good, "bad": bad, "listed": listed, "again": caught(manager.save)}


def save_caught(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Saves once; returns what the constructor or the save raised."""
    checkpoint = make_state(strategy, 3)
    try:
        manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    except distckpt.errors.DistckptError as error:
        return {"path": None, "error": type(error).__name__, "text": str(error), "seconds": 0.0}
    return caught(manager.save)


def async_disk_full_on_one(
    strategy: Any, index: int, directory: str, limit: int, where: int, ask: str
) -> dict[str, Any]:
    """The background save fails on one worker; all workers learn of it when they call `ask`."""
    options = distckpt.ManagerOptions(enable_async=True)
    manager = distckpt.CheckpointManager(make_state(strategy, 3), directory, 3, options=options)
    with file_size_limit(limit if index == where else None):
        started = caught(manager.save)
        manager._operations.background.wait()
    asked = caught(getattr(manager, ask))
    listed = manager.checkpoints
    again = caught(manager.save)
    manager.sync()
    return {
        "started": started,
        "asked": asked,
        "listed": listed,
        "again": again,
        "checkpoints": manager.checkpoints,
    }


def async_other_model_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 tracks one more variable, which only the background save can notice."""
    checkpoint = make_state(strategy, 3)
    if index == 1:
        checkpoint.extra = tf.Variable([1.0, 2.0])
    options = distckpt.ManagerOptions(enable_async=True)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    return {"save": caught(manager.save), "sync": caught(manager.sync)}
