"""Finishes what a dead or failed attempt left behind, so that each ends committed or not at all.

What may be left, and what becomes of it (docs/protocol.md, "Recovery"):

- a pending folder alone: removed.
- files already moved into the directory, but no manifest of the attempt: taken back.
- a manifest of the attempt that replaces another (the switch of versions): completed if the index
  of the new version is in place, else the old version's manifest is put back.
- its final manifest: it is committed, and only the folder goes.
- a file that was being written under a temporary name: removed.

Nothing that the manifest on disk claims is ever removed, and every step may be repeated.
"""

from __future__ import annotations

import dataclasses
import logging

from distckpt.core import layout
from distckpt.core import manifest as manifests
from distckpt.core.manifest import Manifest
from distckpt.errors import ManifestError
from distckpt.roles.checkpoint_files import CheckpointFiles
from distckpt.roles.ownership import Ownership
from distckpt.storage.base import Storage
from distckpt.storage.temporary import is_temporary

_log = logging.getLogger("distckpt")


class Recovery:
    """Settles unfinished attempts in one directory. Chief only, in possession of the epoch."""

    def __init__(
        self, storage: Storage, directory: str, ownership: Ownership, *, durable: bool
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._ownership = ownership
        self._durable = durable

    def finish_all(self) -> None:
        """Settles every attempt but the running ones of this process.

        First each folder is moved to where only this epoch renames from; that is what stops a
        paused owner (see `ownership`).

        Raises:
          OSError: The directory cannot be changed.
        """
        mine = layout.abandoned_folder(self._directory, self._ownership.epoch or 0)
        unfinished = self._unfinished(mine)
        if unfinished:
            self._storage.make_directory(mine)
        for parent, name in unfinished:
            try:
                self._storage.rename(layout.join(parent, name), layout.join(mine, name))
            except FileNotFoundError:
                continue  # its owner finished and removed it in the meantime
            _log.info("%s was left in %s by an unfinished save; cleaning up.", name, parent)
        for name in self._storage.list(mine):
            self._settle(layout.join(mine, name))
        self._storage.remove_tree(layout.abandoned_root(self._directory))

    def remove_temporaries(self) -> None:
        """Removes files that a dead chief was writing. Only right after taking the epoch.

        Raises:
          OSError: The directory cannot be changed.
        """
        private = (layout.epochs_folder, layout.quarantine_folder)
        for folder in (self._directory, *(name(self._directory) for name in private)):
            for name in filter(is_temporary, self._storage.list(folder)):
                self._storage.remove(layout.join(folder, name))

    def roll_back(self, folder: str) -> None:
        """Settles an attempt of this process that failed; `folder` is its pending folder's name.

        Raises:
          OSError: The directory cannot be changed; the next `finish_all` will do it.
        """
        self._settle(layout.join(self._directory, folder))

    def _unfinished(self, mine: str) -> list[tuple[str, str]]:
        """Returns (parent, name) of every folder to settle that is not in `mine` yet."""
        pending = layout.classify(self._storage.list(self._directory)).pending
        running = self._ownership.in_flight
        found = [(self._directory, p.folder) for p in pending if p.folder not in running]
        root = layout.abandoned_root(self._directory)
        for epoch in self._storage.list(root):
            older = layout.join(root, epoch)
            if older != mine:
                found += [(older, name) for name in self._storage.list(older)]
        return found

    def _settle(self, folder: str) -> None:
        prepared = self._prepared(folder)
        if prepared is not None:
            files = self._files(prepared.name)
            try:
                current = files.manifest()
            except ManifestError as error:
                _log.warning("%s; its files are left as they are.", error)
            else:
                if current is None or current.attempt != prepared.attempt:
                    self._take_back(prepared, current, files)
                else:
                    self._complete(current, files, folder)
        self._storage.remove_tree(folder)

    def _take_back(
        self, prepared: Manifest, current: Manifest | None, files: CheckpointFiles
    ) -> None:
        if current is None and files.index() == prepared.index:
            files.remove_index()
            files.flush()
        keep = current.claims if current else frozenset()
        ours = frozenset(f.name for f in prepared.files)
        files.remove_data(keep=keep | (frozenset(files.data()) - ours), also=ours)
        files.flush()

    def _complete(self, current: Manifest, files: CheckpointFiles, folder: str) -> None:
        """Ends a switch of versions, forward if the new index is in place, else back."""
        final: Manifest | None = current
        if current.replaces is not None:
            index = files.index()
            if index == current.index:
                final = dataclasses.replace(current, replaces=None)
            elif index == current.replaces.index:
                final = current.replaces.manifest
            else:
                _log.warning("%s has a foreign index; its files are left.", current.name)
                return
            path = layout.join(self._directory, layout.manifest_name(current.name))
            if final is None:
                self._storage.remove(path)
            else:
                settled = layout.join(folder, layout.FINAL_MANIFEST)
                self._storage.write(settled, manifests.render(final), durable=self._durable)
                self._storage.rename(settled, path)
            files.flush()
            if final is None:
                files.remove_data(keep=frozenset(current.replaces.files))
                return
        assert final is not None
        files.remove_data(keep=final.claims)
        files.flush()

    def _prepared(self, folder: str) -> Manifest | None:
        path = layout.join(folder, layout.PREPARED_MANIFEST)
        try:
            return manifests.parse(self._storage.read(path), path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ManifestError:
            return None  # it was being written: nothing had been moved yet

    def _files(self, name: str) -> CheckpointFiles:
        return CheckpointFiles(
            self._storage, self._directory, name, self._ownership, durable=self._durable
        )
