"""Deletes checkpoints that retention gave up, and nothing else. Chief only, after the commit.

A managed checkpoint dies in three steps: its manifest is renamed to a tombstone (from then on it
is not committed), its files go, the tombstone goes. A death in between leaves the tombstone, from
which the next chief finishes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from distckpt.core import layout
from distckpt.core import manifest as manifests
from distckpt.core.manifest import Manifest
from distckpt.errors import ManifestError, SupersededError
from distckpt.roles.checkpoint_files import CheckpointFiles
from distckpt.roles.ownership import Ownership
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


class Pruner:
    """Deletes checkpoints of one directory. Chief only, in possession of the epoch."""

    def __init__(
        self, storage: Storage, directory: str, ownership: Ownership, *, durable: bool
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._ownership = ownership
        self._durable = durable

    def prune(self, names: Iterable[str]) -> None:
        """Deletes the checkpoints `names`. What fails is logged: the save has succeeded."""
        for name in names:
            try:
                self._delete(name)
            except (OSError, ManifestError, SupersededError) as error:
                _log.warning("%s in %s was not deleted: %s", name, self._directory, error)

    def finish_all(self) -> None:
        """Completes the deletions that a dead predecessor began.

        Raises:
          OSError: The directory cannot be changed.
        """
        folder = layout.tombstones_folder(self._directory)
        for file in self._storage.list(folder):
            path = layout.join(folder, file)
            try:
                manifest = manifests.parse(self._storage.read(path), path)
            except ManifestError as error:
                _log.warning("%s; it is left as it is.", error)
                continue
            self._bury(manifest.name, manifest, path)

    def _delete(self, name: str) -> None:
        self._ownership.check()
        manifest_path = layout.join(self._directory, layout.manifest_name(name))
        manifest = self._files(name).manifest()
        tombstone = None
        if manifest is not None:
            folder = layout.tombstones_folder(self._directory)
            self._storage.make_directory(folder)
            tombstone = layout.join(folder, layout.note_name(name, manifest.attempt))
            self._storage.rename(manifest_path, tombstone)
            if self._durable:
                self._storage.flush_directory(folder)
                self._storage.flush_directory(self._directory)
        self._bury(name, manifest, tombstone)

    def _bury(self, name: str, manifest: Manifest | None, tombstone: str | None) -> None:
        files = self._files(name)
        current = files.manifest()  # a newer checkpoint of the same name keeps its files
        foreign = manifest is not None and files.index() not in (None, manifest.index)
        if current is not None or not foreign:  # else plain TensorFlow has saved this name again
            if current is None:
                files.remove_index()
            files.remove_data(
                keep=current.claims if current else frozenset(),
                also=manifest.claims if manifest else frozenset(),
            )
        if tombstone is not None:
            files.flush()
            self._storage.remove(tombstone)

    def _files(self, name: str) -> CheckpointFiles:
        return CheckpointFiles(
            self._storage, self._directory, name, self._ownership, durable=self._durable
        )
