"""Finds damage that a manifest, an index and the sizes of files show. Any process; never writes.

Only a verification reads the bytes, too.
"""

from __future__ import annotations

from distckpt.core import layout
from distckpt.core.manifest import Manifest
from distckpt.core.tensorflow_format import index_reader
from distckpt.directory.catalog import Catalog
from distckpt.directory.checkpoint_files import read_manifest
from distckpt.errors import CheckpointDamagedError, DistckptError, reason
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader

# What is said of a checkpoint for which `is_deleted` is true.
DELETED = "Deleted by TensorFlow's manager; only the manifest is left."


def look(storage: Storage, directory: str, name: str) -> str:
    """Returns the damage of a checkpoint in a sentence; "" if there is none."""
    return of(storage, directory, name, Catalog(RetryingReader(storage), directory, brief=True))[1]


def of(
    storage: Storage, directory: str, name: str, catalog: Catalog
) -> tuple[Manifest | None, str]:
    """Returns the manifest of a checkpoint, and its damage in a sentence, or "".

    If the checkpoint is damaged, its manifest is returned if the manifest itself is not damaged.
    """
    found = catalog.listing().checkpoints.get(name)
    try:
        if found is not None and not found.has_index:
            return intact(storage, directory, name), f"{layout.index_name(name)} is missing."
        manifest = catalog.manifest(name)
    except DistckptError as error:
        return intact(storage, directory, name), str(error)
    if manifest is None:
        return None, _too_short(storage, directory, name)
    problem = _wrong_file(storage, directory, manifest)
    if problem:
        now = intact(storage, directory, name)
        if now is None or now.attempt != manifest.attempt:
            problem = ""  # somebody has just deleted or replaced the checkpoint
    return manifest, problem


def is_deleted(name: str, catalog: Catalog) -> bool:
    """Returns whether plain TensorFlow's manager has deleted a checkpoint, except its manifest.

    That manager first takes the checkpoint out of TensorFlow's file, then removes index and data.
    """
    found, named = catalog.listing().checkpoints.get(name), catalog.named()
    if found is None or not found.has_manifest or found.has_index or found.data:
        return False
    return named is not None and name not in named


def intact(storage: Storage, directory: str, name: str) -> Manifest | None:
    """Returns the manifest of a checkpoint, if the manifest itself is not damaged."""
    try:
        return read_manifest(storage, directory, name, entries=False)
    except (DistckptError, OSError):
        return None


def _too_short(storage: Storage, directory: str, name: str) -> str:
    """Returns which file of a plain checkpoint is missing or ends too early, or ""."""
    path = layout.join(directory, layout.index_name(name))
    try:
        index = index_reader.read_index(storage.read(path))
    except FileNotFoundError:
        return ""  # somebody has just deleted it
    except OSError as error:
        return f"{layout.index_name(name)} cannot be read: {reason(error)}."
    except CheckpointDamagedError as error:
        return f"{path}: {error}"
    ends: dict[int, int] = {}
    for entry in index.stored:
        ends[entry.shard] = max(ends.get(entry.shard, 0), entry.offset + entry.size)
    for shard, end in sorted(ends.items()):
        file = layout.data_name(name, shard, index.num_shards)
        problem = _shorter(storage, directory, file, end)
        if problem:
            return problem if storage.exists(path) else ""
    return ""


def _shorter(storage: Storage, directory: str, file: str, wanted: int) -> str:
    try:
        size = storage.size(layout.join(directory, file))
    except FileNotFoundError:
        return f"{file} is missing."
    except OSError as error:
        return f"{file} cannot be read: {reason(error)}."
    return f"{file} has {size} bytes instead of {wanted}." if size < wanted else ""


def _wrong_file(storage: Storage, directory: str, manifest: Manifest) -> str:
    """Returns which file of a checkpoint is missing or has a wrong size, or ""."""
    for file in manifest.files:
        path = layout.join(directory, file.name)
        try:
            size = storage.size(path)
        except FileNotFoundError:
            return f"{file.name} is missing."
        except OSError as error:
            return f"{file.name} cannot be read: {reason(error)}."
        if size != file.size:
            return f"{file.name} has {size} bytes instead of {file.size}."
    return ""
