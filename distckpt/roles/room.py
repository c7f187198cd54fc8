"""Finds out how much room the checkpoints of a directory will take. Any process; only reads."""

from __future__ import annotations

from distckpt.core.room import Room
from distckpt.roles import host, inventory
from distckpt.storage.base import Storage


def look(storage: Storage, directory: str, keep: int | None = None) -> Room:
    """Returns what is known of the sizes of checkpoints.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      keep: How many are going to be kept. If None, what the newest manifest says, but not less than
        there are now, for there may be policies that keep more.

    Raises:
      OSError: The directory cannot be read.
    """
    items = [item for item in inventory.take(storage, directory, host.now()).items if item.listed]
    newest = [item for item in items if item.newest] or items[-1:]
    if not newest:
        return Room(0, keep or 0, 0)
    manifest = newest[0].manifest
    rules = manifest.retention if manifest else None
    unlimited = rules is not None and rules.max_to_keep is None and not rules.keep
    most = (rules.max_to_keep if rules else None) or 0
    there = sum(item.bytes for item in items)
    kept = keep if keep is not None else max(most, len(items))
    return Room(newest[0].bytes, kept, there, unlimited and keep is None)
