"""Gives a plain TensorFlow checkpoint a manifest, which makes it a checkpoint of distckpt.

Only for the owner of the directory. The content of the manifest is read from the checkpoint's
index, whose checksums TensorFlow computed while writing; the bytes have been verified before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import google_crc32c

from distckpt.core import layout, manifest_json
from distckpt.core.manifest import EntryRecord, FileRecord, IndexRecord, Manifest, PieceRecord
from distckpt.core.tensorflow_format import index_reader
from distckpt.core.tensorflow_format.index_reader import BundleEntry, Index
from distckpt.errors import ConfigurationError
from distckpt.maintenance.exclusive_access import ExclusiveAccess
from distckpt.storage.base import Storage

# The manifest's name until it is renamed. Not the name of a prepared manifest: `AttemptCleanup`
# would undo such a save.
_STAGED = "imported.json"


def make_manifest(
    storage: Storage, directory: str, name: str, *, committed_at: float, step: int | None
) -> Manifest:
    """Returns a manifest of a plain checkpoint. Any process; reads only the index and sizes.

    The checkpoint is ordered by its number, before all that distckpt has saved (term 0).

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      name: The checkpoint.
      committed_at: When it was saved, in seconds since 1970.
      step: The training step; default: the number in its name.

    Raises:
      CheckpointDamagedError: The index is damaged.
      OSError: A file is missing, or cannot be read.
    """
    path = layout.join(directory, layout.index_name(name))
    data = storage.read(path)
    index = index_reader.read_index(data)
    files = [layout.data_name(name, n, index.num_shards) for n in range(index.num_shards)]
    number = layout.split_number(name)[1] or 0
    return Manifest(
        name=name,
        step=number if step is None else step,
        term=0,
        sequence=number,
        attempt="",
        committed_at=committed_at,
        seconds=0.0,
        index=IndexRecord(layout.index_name(name), len(data), int(google_crc32c.value(data))),
        files=tuple(FileRecord(f, storage.size(layout.join(directory, f)), 0) for f in files),
        entries=_entries(index),
        workers=(),
        versions={},
    )


def adopt(
    access: ExclusiveAccess, storage: Storage, directory: str, read: Callable[[], Manifest]
) -> Manifest:
    """Moves the manifest into place, which commits the checkpoint. Returns the manifest.

    Args:
      access: Holds the directory.
      storage: Where the directory is.
      directory: Its absolute path or URL.
      read: Makes the manifest; called twice, to check that the files have not changed.

    Raises:
      ConfigurationError: The checkpoint already has a manifest, or is just being changed.
      SupersededError: A job has begun meanwhile.
      OSError: The manifest cannot be written.
    """
    found = read()
    target = layout.join(directory, layout.manifest_name(found.name))
    with access.pending(found.name) as (attempt, folder):
        manifest = dataclasses.replace(found, attempt=attempt)
        staged = layout.join(folder, _STAGED)
        access.ownership.stage(staged, manifest_json.render(manifest))
        if storage.exists(target):
            raise ConfigurationError(f"{target} exists already: nothing to import.")
        if read() != found:
            raise ConfigurationError(f"{found.name} in {directory} is just being changed.")
        storage.rename(staged, target)
        storage.flush_directory(directory)
    return manifest


def _entries(index: Index) -> tuple[EntryRecord, ...]:
    pieces: dict[str, list[PieceRecord]] = {}
    for entry in index.stored:
        pieces.setdefault(entry.key, []).append(_piece(entry))
    return tuple(
        EntryRecord(t.key, t.dtype, t.shape, tuple(pieces.get(t.key, ())))
        for t in sorted(index.tensors, key=lambda t: t.key)
    )


def _piece(entry: BundleEntry) -> PieceRecord:
    return PieceRecord(entry.shard, entry.offset, entry.size, entry.crc32c, entry.spec)
