"""Tells the progress of saves in a directory from their files. Any process; never writes."""

from __future__ import annotations

import dataclasses
import re

from distckpt.core import attempts, layout, listings
from distckpt.inspection.inventory import size_of
from distckpt.storage.base import Storage
from distckpt.storage.lenient_reads import names_in

_SHARD = re.compile("shard-([0-9]{5,18})-of-([0-9]{5,18})(.*)", re.DOTALL)
OPENED, WRITING, WRITTEN = "opened", "writing", "written"
MERGED, COMMITTING, DELETING = "merged", "committing", "deleting"


@dataclasses.dataclass(frozen=True)
class WorkerProgress:
    """One worker's progress in a save: OPENED (nothing yet), WRITING or WRITTEN; its bytes."""

    worker: int
    phase: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class SaveProgress:
    """A save or deletion, in progress or abandoned.

    Attributes:
      name: The checkpoint's name.
      attempt: The attempt's id.
      phase: OPENED, WRITING, MERGED, COMMITTING or DELETING.
      workers: One for each worker, once any worker has written something.
      bytes: The size of the pending folder.
    """

    name: str
    attempt: str
    phase: str
    workers: tuple[WorkerProgress, ...]
    bytes: int


def look(storage: Storage, directory: str) -> list[SaveProgress]:
    """Returns the saves and deletions in progress, by age.

    Raises:
      OSError: The directory cannot be read.
    """
    pending = listings.classify(storage.list(directory)).pending
    found = [_progress(storage, directory, one) for one in pending]
    return [progress for progress in found if progress is not None]


def _progress(storage: Storage, directory: str, pending: attempts.Pending) -> SaveProgress | None:
    folder = layout.join(directory, pending.folder)
    sizes = {
        name: size_of(storage, layout.join(folder, name)) for name in names_in(storage, folder)
    }
    phase = _phase(sizes, pending.checkpoint)
    if phase is None:
        return None
    return SaveProgress(
        pending.checkpoint,
        attempts.attempt_id(*pending.attempt),
        phase,
        _workers(sizes),
        sum(sizes.values()),
    )


def _phase(sizes: dict[str, int], checkpoint: str) -> str | None:
    names = set(sizes)
    if "tombstone.json" in names:
        return DELETING
    if not sizes.get(layout.PROBE_FILE):
        return None  # new, half removed, or of `gc` or `rollback`: a save writes its probe first
    if layout.PREPARED_MANIFEST in names:
        return COMMITTING
    if layout.index_name(checkpoint) in names:
        return MERGED
    return WRITING if any(map(_SHARD.fullmatch, names)) else OPENED


def _workers(sizes: dict[str, int]) -> tuple[WorkerProgress, ...]:
    count, written, indexed = 0, dict[int, int](), set[int]()
    for name, size in sizes.items():
        match = _SHARD.fullmatch(name)
        if match is None:
            continue
        worker, count = int(match[1]), max(count, int(match[2]))
        written[worker] = written.get(worker, 0) + size
        if match[3].endswith(layout.index_name("")) and ".own" not in match[3]:
            indexed.add(worker)
    if count > 100_000:
        return ()  # no job has so many: the name was forged
    return tuple(
        WorkerProgress(
            worker,
            OPENED if worker not in written else WRITTEN if worker in indexed else WRITING,
            written.get(worker, 0),
        )
        for worker in range(count)
    )
