"""Finds the folders in which rollbacks have set checkpoints aside. Any process; never writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from distckpt.core import layout, listings
from distckpt.storage.base import Storage
from distckpt.storage.lenient_reads import names_in


@dataclasses.dataclass(frozen=True)
class SetAside:
    """A folder of a rollback; it is a checkpoint directory of its own.

    Attributes:
      folder: Its name in the directory.
      checkpoints: The names of its checkpoints, by name and number.
    """

    folder: str
    checkpoints: tuple[str, ...]


def look(storage: Storage, directory: str, names: Iterable[str]) -> tuple[SetAside, ...]:
    """Returns the folders of rollbacks that have checkpoints, oldest first.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      names: The names of what is in the directory.

    Raises:
      OSError: A folder cannot be read.
    """
    found = []
    for folder in sorted(filter(layout.is_set_aside_name, names)):
        files = names_in(storage, layout.join(directory, folder))
        checkpoints = listings.classify(files).checkpoints.items()
        there = tuple(n for n, one in checkpoints if one.has_index or one.has_manifest)
        if there:
            found.append(SetAside(folder, there))
    return tuple(found)
