"""A small state and its checkpoints: every value tells which save it belongs to."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from distckpt.core import layout
from distckpt.core.protocol.write_plan import Entry, Piece, Plan, make_plan
from distckpt.core.tensorflow_format import index_reader
from distckpt.core.tensorflow_format.index_merge import merge_indexes
from distckpt.errors import CheckpointDamagedError
from distckpt.state.base import CapturedState, Merger, OwnState
from distckpt.storage.base import Storage
from tests.unit.kit.bundles import bundle_files

from .network import SimulatedJob

KEYS = ("bias", "kernel", "slot", "step")
OWN = ("iterator",)
# Cached, because these are the same in every run.
merged = functools.lru_cache(50_000)(lambda parts: merge_indexes(list(parts)))
read_index = functools.lru_cache(50_000)(index_reader.read_index)


def entries(*, collective: bool) -> tuple[Entry, ...]:
    """Returns the state's entries; `collective` makes one that all workers read together."""
    return tuple(
        Entry(key, "float32", (2,), 8, chief_only=key == "step", collective=collective and n == 0)
        for n, key in enumerate(KEYS)
    )


@functools.cache
def plan_for(workers: int, *, collective: bool) -> Plan:
    """Returns the plan of a job."""
    return make_plan(entries(collective=collective), workers)


@functools.lru_cache(100_000)
def _bundle(keys: tuple[str, ...], number: int) -> tuple[bytes, bytes]:
    value = np.full(2, number, np.float32)
    return bundle_files([(key, (2,), None, value) for key in keys])


@functools.lru_cache(50_000)
def data_of(number: int, workers: int, *, collective: bool) -> tuple[bytes, ...]:
    """Returns what the data files of save `number` must hold, in their order."""
    shares = plan_for(workers, collective=collective).shares
    return tuple(_bundle(tuple(p.entry.key for p in share), number)[1] for share in shares if share)


@functools.lru_cache(50_000)
def own_of(number: int, workers: int) -> tuple[bytes, ...]:
    """Returns the files of the workers' own states of save `number`: index, data, index, …"""
    return tuple(file for worker in range(workers) for file in _bundle(OWN, _own(number, worker)))


def _own(number: int, worker: int) -> int:
    return 10 * number + worker


class OwnValues(CapturedState):
    """The state that only one worker has.

    Args:
      storage: Where it is written.
      number: Which save.
      worker: Which worker.
    """

    def __init__(self, storage: Storage, number: int, worker: int) -> None:
        self._storage = storage
        self._files = _bundle(OWN, _own(number, worker))

    def write(self, folder: str, stem: str, pieces: list[Piece]) -> tuple[str, ...]:
        """See base."""
        index, data = self._files
        path = layout.join(folder, stem)
        self._storage.write(layout.data_name(path, 0, 1), data, durable=False)
        self._storage.write(layout.index_name(path), index, durable=False)
        return (stem,)


def own_state(storage: Storage, number: int, worker: int) -> OwnState:
    """Returns the state that only this worker has, at save `number`."""
    entry = Entry(OWN[0], "float32", (2,), 8)
    return OwnState(OwnValues(storage, number, worker), (Piece(entry),))


def copy_of(value: Callable[[], int]) -> Callable[[], int]:
    """Returns a function that returns what `value` returns now."""
    held = value()
    return lambda: held


class SimulatedState(CapturedState):
    """The values of one save on one worker.

    Args:
      storage: Where they are written.
      number: Which save; what it returns later is of a later moment, as memory written in place is.
      job: The job, for what is read together.
      worker: Which worker.
      call: Which save of the job.
    """

    def __init__(
        self, storage: Storage, number: Callable[[], int], job: SimulatedJob, worker: int, call: int
    ) -> None:
        self._storage = storage
        self._number = copy_of(number)
        self._gather = functools.partial(job.gather, worker, call)

    def read_together(self) -> None:
        """See base."""
        self._gather()

    def write(self, folder: str, stem: str, pieces: list[Piece]) -> tuple[str, ...]:
        """See base."""
        if not pieces:
            return ()
        index, data = _bundle(tuple(p.entry.key for p in pieces), self._number())
        path = layout.join(folder, stem)
        self._storage.write(layout.data_name(path, 0, 1), data, durable=False)
        self._storage.write(layout.index_name(path), index, durable=False)
        return (stem,)


class SimulatedMerger(Merger):
    """Does the same as ``MergeV2Checkpoints``, in steps of a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def merge(self, folder: str, prefixes: list[str], name: str) -> None:
        """See base."""
        paths = [layout.join(folder, prefix) for prefix in prefixes]
        parts = tuple(self._storage.read(layout.index_name(path)) for path in paths)
        for shard, path in enumerate(paths):
            target = layout.data_name(layout.join(folder, name), shard, len(paths))
            self._storage.rename(layout.data_name(path, 0, 1), target)
        index = layout.index_name(layout.join(folder, name))
        self._storage.write(index, merged(parts), durable=False)
        for path in paths:
            self._storage.remove(layout.index_name(path))


def restore(storage: Storage, directory: str, name: str) -> int:
    """Reads a checkpoint as TensorFlow does; returns which save it is of.

    Raises:
      CheckpointDamagedError: It is not whole, or a mixture.
      OSError: It cannot be read.
    """
    found = _read(storage, directory, name, KEYS)
    if len(found) != 1:
        raise CheckpointDamagedError(f"{name} is a mixture of {found}")
    return int(found.pop())


def restore_own(storage: Storage, directory: str, prefix: str, number: int, worker: int) -> None:
    """Reads the state that only one worker has, and checks that it is of save `number`.

    Raises:
      CheckpointDamagedError: It is not, or not whole.
      OSError: It cannot be read.
    """
    found = _read(storage, directory, prefix, OWN)
    if found != {float(_own(number, worker))}:
        raise CheckpointDamagedError(f"{prefix} has {found} and is to belong to {number}")


def _read(storage: Storage, directory: str, name: str, keys: tuple[str, ...]) -> set[float]:
    try:
        index = read_index(storage.read(layout.join(directory, layout.index_name(name))))
        found = set()
        for entry in index.stored:
            file = layout.data_name(name, entry.shard, index.num_shards)
            raw = storage.read(layout.join(directory, file), entry.offset, entry.size)
            found |= set(np.frombuffer(raw, np.float32).tolist())
    except FileNotFoundError as error:
        raise CheckpointDamagedError(f"{name}: {error}") from error
    if {e.key for e in index.stored} != set(keys):
        raise CheckpointDamagedError(f"{name} has other tensors")
    return found
