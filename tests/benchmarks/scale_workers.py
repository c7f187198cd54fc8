"""The chief of `scale.py`, one other worker, and the crew that plays all the rest."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from one_key_service import OneKeyCoordinator, OneKeyService

from distckpt.core import attempts, layout
from distckpt.core.protocol import messages
from distckpt.core.protocol.messages import Report, WrittenFile, WrittenPiece
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.core.protocol.write_plan import OBJECT_GRAPH_KEY, Entry, Piece, Plan
from distckpt.core.tensorflow_format.index_merge import merge_indexes
from distckpt.core.tensorflow_format.index_writer import StoredTensor, make_index
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.messaging.keys import Keys
from distckpt.ownership.fencing import Ownership
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.committer import Committer
from distckpt.saving.manifest_builder import Label
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.save_session import SaveSession
from distckpt.saving.shard_writer import ShardWriter
from distckpt.saving.subject import Subject
from distckpt.state.base import CapturedState, Merger
from distckpt.storage.local import LocalStorage

# Of ten tensors one is large, three are middle-sized and six are small, as in a deep network.
SHAPES = [(1024, 1024), *[(512, 64)] * 3, *[(64,)] * 6]
KEYS = Keys("scale", "save", 0)
# What the chief does besides waiting for reports and writing its own share.
WORK = ("Open", "AnnounceOpening", "AwaitAnswer", "Merge", "Commit", "Tell", "Prune", "between")
_FLOAT32, _STRING = 1, 7


def entries_of(count: int) -> list[Entry]:
    """Returns `count` entries of the sizes of `SHAPES`, and the object graph."""
    entries = [Entry(OBJECT_GRAPH_KEY, "string", (), 0, chief_only=True)]
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        key = f"model/layer{number // 10}/w{number % 10}/.ATTRIBUTES/VARIABLE_VALUE"
        nbytes = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        entries.append(Entry(key, "float32", shape, nbytes))
    return entries


class Chief:
    """Worker 0, with the real session, committer and books.

    Attributes:
      service: The job's key-value store, for the other workers.
      coordinator: The chief's view of it.
      seconds: Processor time of its thread in a save, but for writing its share.
      actions: The same by action of the protocol.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        directory, storage = str(folder), CountingStorage()
        self.storage = storage
        self.service = OneKeyService()
        self.coordinator = OneKeyCoordinator(self.service, 0, plan.workers)
        self.seconds = 0.0
        self.actions: dict[str, float] = defaultdict(float)
        ownership = Ownership(storage, directory, durable=False)
        managed = ManagedCheckpoints(storage, directory, 3, None, durable=False)
        committer = Committer(storage, directory, ownership, PythonMerger(), durable=False)
        subject = Subject("ckpt-1", directory, Label(1), plan, EmptyState())
        log = PhaseLog("ckpt-1", subject.label)
        self._session = SaveSession(
            self.coordinator,
            KEYS,
            subject,
            ShardWriter(storage, directory, 0, plan.workers, durable=False, threads=4),
            ChiefPart(committer, managed, subject, log),
            patience=Patience(600.0),
            phase_log=log,
        )

    def save(self) -> None:
        """Saves."""
        perform = self._session._perform

        def timed(action: Any) -> Any:
            before = time.thread_time()
            try:
                return perform(action)
            finally:
                self.actions[type(action).__name__] += time.thread_time() - before

        self._session._perform = timed  # type: ignore[method-assign]
        before = time.thread_time()
        self._session.hold()
        self._session.run()
        total = time.thread_time() - before
        self.actions["between"] = total - sum(self.actions.values())
        self.seconds = sum(seconds for name, seconds in self.actions.items() if name in WORK)


class Worker:
    """Worker 1, with the real session: its calls are those of each worker but the chief."""

    def __init__(self, folder: Path, plan: Plan, service: OneKeyService) -> None:
        directory, storage = str(folder), CountingStorage()
        self.storage = storage
        subject = Subject("ckpt-1", directory, Label(1), plan, EmptyState())
        self._session = SaveSession(
            OneKeyCoordinator(service, 1, plan.workers),
            KEYS,
            subject,
            ShardWriter(storage, directory, 1, plan.workers, durable=False, threads=4),
            None,
            patience=Patience(600.0),
            phase_log=PhaseLog("ckpt-1", subject.label),
        )

    def save(self) -> None:
        """Saves."""
        self._session.hold()
        self._session.run()


class CountingStorage(LocalStorage):
    """Counts the names that it lists.

    Attributes:
      names: How many names it has listed.
    """

    names = 0

    def list(self, directory: str) -> list[str]:
        found = super().list(directory)
        self.names += len(found)
        return found


class Crew:
    """The workers from 2 on: writes their files and publishes their reports.

    Attributes:
      report_bytes: The size of all their reports.
    """

    def __init__(self, folder: Path, plan: Plan, service: OneKeyService) -> None:
        self._folder = folder
        self._plan = plan
        self._service = service
        self.report_bytes = 0

    def work(self) -> None:
        """Waits for the opening, then does what the workers do."""
        found = self._service.get(2, KEYS.opening, 60.0)
        assert found is not None
        opening = messages.opening_from_json(found)
        pending = self._folder / attempts.pending_name(opening.name, opening.attempt)
        for worker in range(2, self._plan.workers):
            report = write_share(str(pending), worker, self._plan)
            text = messages.to_json(report)
            self.report_bytes += len(text)
            self._service.set(worker, KEYS.answer(worker), text)


class EmptyState(CapturedState):
    """Writes files of the right sizes, with nothing in them."""

    def write(self, folder: str, stem: str, pieces: Sequence[Piece]) -> tuple[str, ...]:
        write_bundle(folder, stem, pieces)
        return (stem,)


class PythonMerger(Merger):
    """Does what ``MergeV2Checkpoints`` does."""

    def merge(self, folder: str, prefixes: Sequence[str], name: str) -> None:
        paths = [layout.join(folder, prefix) for prefix in prefixes]
        merged = merge_indexes([Path(layout.index_name(path)).read_bytes() for path in paths])
        for shard, path in enumerate(paths):
            target = layout.data_name(layout.join(folder, name), shard, len(paths))
            os.rename(layout.data_name(path, 0, 1), target)
            os.remove(layout.index_name(path))
        Path(layout.index_name(layout.join(folder, name))).write_bytes(merged)


def write_share(folder: str, worker: int, plan: Plan) -> Report:
    """Writes the share of `worker`; returns its report."""
    stem = attempts.shard_stem(worker, plan.workers)
    offsets = write_bundle(folder, stem, plan.shares[worker])
    pieces = tuple(
        WrittenPiece(p.entry.key, p.entry.dtype, p.shape, p.spec, 0, offset, p.nbytes, 0)
        for p, offset in zip(plan.shares[worker], offsets, strict=True)
    )
    size = sum(piece.nbytes for piece in plan.shares[worker])
    file = WrittenFile(layout.data_name(stem, 0, 1), size)
    return Report(worker, "host", 1, 0.1, (stem,), (file,), pieces)


def write_bundle(folder: str, stem: str, pieces: Sequence[Piece]) -> list[int]:
    """Writes an index and an empty data file of the right size; returns the pieces' offsets."""
    offsets, offset = [], 0
    stored = []
    for piece in pieces:
        dtype = _FLOAT32 if piece.entry.dtype == "float32" else _STRING
        stored.append(
            StoredTensor(
                piece.entry.key, piece.spec, dtype, piece.shape, offset, piece.nbytes, crc32c=0
            )
        )
        offsets.append(offset)
        offset += piece.nbytes
    path = layout.join(folder, stem)
    Path(layout.index_name(path)).write_bytes(make_index(stored).content)
    with open(layout.data_name(path, 0, 1), "wb") as data:
        data.truncate(offset)
    return offsets


def rejoin(threads: Sequence[threading.Thread]) -> None:
    """Waits for the other workers; raises if they have not come to an end."""
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive()
