"""Looks up the sizes of a directory's checkpoints for an estimate. Any process; only reads."""

from __future__ import annotations

from distckpt.inspection import inventory
from distckpt.inspection.space_estimate import SpaceEstimate
from distckpt.runtime import host
from distckpt.storage.base import Storage


def look(storage: Storage, directory: str, keep: int | None = None) -> SpaceEstimate:
    """Returns what is known of the sizes of checkpoints.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      keep: How many will be kept. If None, the number in the newest manifest, but not fewer
        than exist now, because policies may keep more.

    Raises:
      OSError: The directory cannot be read.
    """
    items = [item for item in inventory.take(storage, directory, host.now()).items if item.listed]
    newest = [item for item in items if item.newest] or items[-1:]
    if not newest:
        return SpaceEstimate(0, keep or 0, 0)
    manifest = newest[0].manifest
    rules = manifest.retention if manifest else None
    unlimited = rules is not None and rules.max_to_keep is None and not rules.keep
    most = (rules.max_to_keep if rules else None) or 0
    there = sum(item.bytes for item in items)
    kept = keep if keep is not None else max(most, len(items))
    return SpaceEstimate(newest[0].bytes, kept, there, unlimited and keep is None)
