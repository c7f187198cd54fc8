"""Reads and writes notes that a checkpoint was found damaged, or was completely verified.

A note is a small file with the checkpoint, the checksum of its index, and the reason. It counts
as long as the files it was written about are unchanged. Any process may read notes; the chief
writes them after a commit, and so does ``distckpt verify --note``.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from distckpt.core import layout, safe_names
from distckpt.errors import CheckpointDamagedError, ManifestError
from distckpt.storage.base import Storage
from distckpt.storage.lenient_reads import content_of, names_in
from distckpt.storage.retrying_reader import Reader


def read(reader: Reader, folder: str, index_crc32c: Callable[[str], int]) -> dict[str, str]:
    """Returns the valid notes in `folder`: name of the checkpoint → reason.

    Args:
      reader: Where to read.
      folder: `layout.quarantine_folder` or `layout.verified_folder`.
      index_crc32c: Returns the CRC32C of a checkpoint's index; raises CheckpointDamagedError if
        the index cannot be read.

    Raises:
      OSError: The folder cannot be read.
    """
    notes: dict[str, str] = {}
    for file in names_in(reader, folder):
        try:
            note = json.loads(content_of(reader, layout.join(folder, file)))
            name = safe_names.safe_name(note["name"])
            noted, why = note["index_crc32c"], str(note["reason"])
        except (ValueError, KeyError, TypeError, RecursionError, ManifestError):
            continue  # not a note of ours
        try:
            same = noted == index_crc32c(name)
        except CheckpointDamagedError:
            same = noted is None
        if same:
            notes[name] = why
    return notes


def write(
    storage: Storage,
    folder: str,
    name: str,
    index_crc32c: int | None,
    why: str,
    *,
    durable: bool,
) -> None:
    """Writes a note on checkpoint `name`; `index_crc32c` is None if its index cannot be read.

    Raises:
      OSError: It cannot be written.
    """
    note = {"name": name, "index_crc32c": index_crc32c, "reason": why}
    storage.make_directory(folder)
    path = layout.join(folder, layout.note_name(name))
    storage.write(path, json.dumps(note).encode(), durable=durable)
