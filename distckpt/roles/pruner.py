"""Deletes checkpoints that retention gave up, and nothing else. Chief only, after the commit.

A managed checkpoint dies in three steps: its manifest becomes a tombstone in a pending folder (from
then on it is not committed), its files follow, the folder goes. A death in between leaves the
tombstone, from which `recovery` finishes. A checkpoint of plain TensorFlow has no manifest; its
tombstone is made up of what is there. If it was saved over one of ours, the manifest of that one
goes before: with a tombstone, it would pass for a version that was saved after the deletion.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from distckpt.core import layout
from distckpt.core import manifest as manifests
from distckpt.core.manifest import FileRecord, IndexRecord, Manifest
from distckpt.errors import ManifestError, SupersededError
from distckpt.roles.checkpoint_files import CheckpointFiles
from distckpt.roles.ownership import Ownership
from distckpt.roles.recovery import TOMBSTONE, Recovery
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")

# To remove a file takes a disk, or a server, longer than this process.
THREADS = 4
# The manifest, in a pending folder, of a version that plain TensorFlow has saved over.
_OUTDATED = "outdated.json"


class Pruner:
    """Deletes checkpoints of one directory. Chief only, in possession of the epoch.

    Args:
      storage: Where the directory is.
      directory: Its path.
      ownership: This process's hold on it.
      durable: Whether renames are forced to stable storage.
      threads: How many files of a checkpoint are removed at the same time; the checkpoints go one
        after the other.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        ownership: Ownership,
        *,
        durable: bool,
        threads: int = THREADS,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._ownership = ownership
        self._durable = durable
        self._recovery = Recovery(storage, directory, ownership, durable=durable, threads=threads)

    def prune(self, names: Iterable[str]) -> frozenset[str]:
        """Deletes the checkpoints `names`. What fails is logged: the save has succeeded.

        Returns:
          Those that are still checkpoints, to be tried again.
        """
        return frozenset(name for name in names if not self._delete(name))

    def _delete(self, name: str) -> bool:
        """Deletes a checkpoint; returns whether it is one no more, be it that files are left."""
        pending = layout.pending_name(name, self._ownership.next_attempt())
        folder = layout.join(self._directory, pending)
        buried = False
        try:
            self._ownership.enter(pending)
            dead = self._bury(name, folder)
            buried = True
            buried = self._recovery.finish_deletion(dead, pending)
        except (OSError, ManifestError, SupersededError) as error:
            _log.warning("%s in %s was not deleted: %s", name, self._directory, error)
        finally:
            # What is left of it, the next `Recovery.finish_all` settles.
            self._ownership.in_flight.discard(pending)
        return buried

    def _bury(self, name: str, folder: str) -> Manifest | None:
        """Puts the tombstone into `folder` and returns it; None if there is nothing to delete."""
        files = CheckpointFiles(
            self._storage, self._directory, name, self._ownership, folder, durable=self._durable
        )
        manifest, index = files.manifest(), files.index()
        if manifest is not None and (index is None or manifest.tells_of(index)):
            self._remove_manifest(files, TOMBSTONE, folder)
            return manifest
        if index is None:
            return None  # somebody else has deleted it
        # Plain TensorFlow wrote it; if there is a manifest, over a checkpoint of ours.
        claims = manifest.claims if manifest else frozenset()
        made_up = _made_up(name, index, sorted({*files.all(), *claims}))
        if manifest is not None:
            self._remove_manifest(files, _OUTDATED, folder)
        path = layout.join(folder, TOMBSTONE)
        self._ownership.stage(path, manifests.render(made_up))
        return made_up

    def _remove_manifest(self, files: CheckpointFiles, into: str, folder: str) -> None:
        files.remove_manifest(into)
        if self._durable:
            self._storage.flush_directory(folder)
            files.flush()


def _made_up(name: str, index: IndexRecord, data: Iterable[str]) -> Manifest:
    return Manifest(
        name=name,
        step=0,
        epoch=0,
        sequence=0,
        attempt="",
        committed_at=0.0,
        seconds=0.0,
        index=index,
        files=tuple(FileRecord(file, 0, 0) for file in data),
        entries=(),
        workers=(),
        versions={},
    )
