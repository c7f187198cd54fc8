"""How far the saves in a directory have got, told from their files. Any process; never writes."""

from __future__ import annotations

import dataclasses
import re

from distckpt.core import layout
from distckpt.roles.inventory import size_of
from distckpt.storage.base import Storage

_SHARD = re.compile("shard-([0-9]{5,18})-of-([0-9]{5,18})(.*)", re.DOTALL)
OPENED, WRITING, WRITTEN = "opened", "writing", "written"
MERGED, COMMITTING, DELETING = "merged", "committing", "deleting"


@dataclasses.dataclass(frozen=True)
class WorkerProgress:
    """What one worker has done for a save: OPENED (nothing yet), WRITING or WRITTEN; its bytes."""

    worker: int
    phase: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class SaveProgress:
    """A save, or a deletion, that is in progress or was left.

    Attributes:
      name: The checkpoint's name.
      attempt: The attempt's id.
      phase: OPENED, WRITING, MERGED, COMMITTING or DELETING.
      workers: One for each worker, once somebody has written something.
      bytes: In the pending folder.
    """

    name: str
    attempt: str
    phase: str
    workers: tuple[WorkerProgress, ...]
    bytes: int


def look(storage: Storage, directory: str) -> list[SaveProgress]:
    """Returns the saves in progress, by age.

    Raises:
      OSError: The directory cannot be read.
    """
    pending = layout.classify(storage.list(directory)).pending
    return [_progress(storage, directory, one) for one in pending]


def _progress(storage: Storage, directory: str, pending: layout.Pending) -> SaveProgress:
    folder = layout.join(directory, pending.folder)
    sizes = {name: size_of(storage, layout.join(folder, name)) for name in _names(storage, folder)}
    workers = _workers(sizes)
    return SaveProgress(
        pending.checkpoint,
        layout.attempt_id(*pending.attempt),
        _phase(set(sizes), pending.checkpoint),
        workers,
        sum(sizes.values()),
    )


def _phase(names: set[str], checkpoint: str) -> str:
    if "tombstone.json" in names:
        return DELETING
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
        return ()  # nobody has so many: a name that somebody has made up
    return tuple(
        WorkerProgress(
            worker,
            OPENED if worker not in written else WRITTEN if worker in indexed else WRITING,
            written.get(worker, 0),
        )
        for worker in range(count)
    )


def _names(storage: Storage, folder: str) -> list[str]:
    try:
        return storage.list(folder)
    except NotADirectoryError:
        return []
