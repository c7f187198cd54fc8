"""Finds damage that a manifest, an index and the sizes of files show. Any process; never writes.

Only a verification reads the bytes, too.
"""

from __future__ import annotations

from distckpt.core import layout
from distckpt.core.manifest import Manifest
from distckpt.directory.catalog import Catalog
from distckpt.directory.checkpoint_files import read_manifest
from distckpt.errors import DistckptError, reason
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader


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
    problem = _wrong_file(storage, directory, manifest) if manifest else ""
    if manifest and problem:
        now = intact(storage, directory, name)
        if now is None or now.attempt != manifest.attempt:
            problem = ""  # somebody has just deleted or replaced the checkpoint
    return manifest, problem


def intact(storage: Storage, directory: str, name: str) -> Manifest | None:
    """Returns the manifest of a checkpoint, if the manifest itself is not damaged."""
    try:
        return read_manifest(storage, directory, name, entries=False)
    except (DistckptError, OSError):
        return None


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
