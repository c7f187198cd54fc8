"""Notes how starts of a job end, to tell a disturbed job from one that makes no progress.

A worker that ends because another was lost, or never came, must be started again, and that does
not count against the job: another worker is at fault. But if the program itself is wrong (only the
chief calls ``save()``), no worker is ever at fault, and the job would be restarted forever.
So a worker that ends in this way notes the newest checkpoint in the directory. If the note of an
earlier start names the same checkpoint, nothing was committed in between, and this end counts as a
failure.

Each worker has its own note, so no two ever write the same file.
"""

from __future__ import annotations

import json

from distckpt.core import layout
from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError
from distckpt.runtime import host
from distckpt.storage.base import Storage

# How many workers, beginning with the chief, note how they end. If a thousand did, one end would
# count a thousand times; with two, there is a note even if the chief has ended well.
WORKERS = 2


def comes_to_nothing(storage: Storage, directory: str, worker: int) -> bool:
    """Notes that this start ends because a worker is missing; returns whether that counts.

    It counts if an earlier start has ended in the same way, and nothing has been committed since.
    For any process that is about to end, at most once.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      worker: Index of this worker.

    Raises:
      OSError: The directory cannot be read, or written.
    """
    folder = layout.stalled_folder(directory)
    if worker >= WORKERS or any(map(storage.is_link, layout.private_folders(directory))):
        return False
    storage.make_directory(folder)
    storage.freshen(directory)  # to see what another worker has just committed
    newest, path = _newest(storage, directory), layout.join(folder, f"worker-{worker:05d}.json")
    if _noted(storage, path) == newest:
        return True
    note = {"newest": newest, "at": host.now(), "host": host.name(), "pid": host.pid()}
    storage.write(path, json.dumps(note).encode(), durable=False)
    return False


def _newest(storage: Storage, directory: str) -> str:
    """Returns the identity of the newest commit; "" if there is none."""
    catalog = Catalog(storage, directory, brief=True)
    name = catalog.view(host.now()).latest
    if name is None:
        return ""
    try:
        head = catalog.head(name)
    except CheckpointDamagedError:
        return name
    return head.attempt if head is not None else name


def _noted(storage: Storage, path: str) -> str | None:
    """Returns the commit in a note; None if there is no note, or it is not ours."""
    try:
        found = json.loads(storage.read(path))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found.get("newest") if isinstance(found, dict) else None
