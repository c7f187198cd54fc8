"""Settles dead or failed attempts, so that each ends committed or leaves nothing.

What an attempt may leave, and what is done about it (docs/protocol.md, "Recovery"):

- a pending folder alone: removed.
- files already moved into the directory, but no manifest of the attempt: taken back.
- a manifest of the attempt that replaces another (the switch of versions): completed if the index
  of the new version is in place; otherwise the old version's manifest is put back.
- its final manifest: it is committed, and only the folder is removed.
- a pending folder with a tombstone: the deletion of that checkpoint is finished; or undone, if
  the checkpoint is pinned or leased and still complete.
- a file that was being written under a temporary name: removed.

A file that the manifest on disk claims, or the index names, is never removed. Every action may be
repeated.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import posixpath
from collections.abc import Sequence

from distckpt.core import attempts, layout, listings, manifest_json
from distckpt.core.manifest import Manifest
from distckpt.directory.checkpoint_files import CheckpointFiles
from distckpt.directory.holds import Holds
from distckpt.errors import ManifestError
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.held_terms import HeldTerm
from distckpt.runtime.run_parallel import run_all
from distckpt.storage.base import Storage
from distckpt.storage.temporary import is_temporary

_log = logging.getLogger("distckpt")

# The manifest, in a pending folder, of a checkpoint that is being deleted.
TOMBSTONE = "tombstone.json"


class AttemptCleanup:
    """Settles unfinished attempts in one directory. Only for the chief while it holds the term.

    Args:
      storage: Where the directory is.
      directory: Its path.
      ownership: This process's ownership of it.
      durable: Whether renames are forced to stable storage.
      threads: How many files are removed at the same time.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        ownership: Ownership,
        *,
        durable: bool,
        threads: int = 1,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._ownership = ownership
        self._durable = durable
        self._threads = threads
        self._holds = Holds(storage, directory)

    def finish_all(self, names: Sequence[str] | None = None) -> bool:
        """Settles every attempt except the running ones of this process and of a successor.

        First each folder is moved to a place from which only this term renames. This stops a paused
        owner, and spares an owner that works in another directory that has taken the place of this
        one (see `ownership`).

        Args:
          names: A listing of the directory, made after this process has taken its term. Without it,
            the directory is listed.

        Returns:
          Whether there was anything to settle.

        Raises:
          OSError: The directory cannot be changed.
          DistckptError: The directory now belongs to another process; see `Ownership.check`.
        """
        held_term = self._ownership.held_term
        with held_term.settling:
            mine = self._ownership.folder
            older = self._abandoned(held_term.term, mine)
            unfinished = self._unfinished(held_term, older, names)
            if unfinished:
                self._ownership.make_folder()
            for parent, name in unfinished:
                try:
                    self._storage.rename(layout.join(parent, name), layout.join(mine, name))
                except FileNotFoundError:
                    continue  # its owner finished and removed it in the meantime
                _log.info("%s was left in %s by an unfinished save; cleaning up.", name, parent)
            found = self._folders(mine)
            for name in found:
                self._settle(layout.join(mine, name))
            self._remove_abandoned([*older, mine])
            return bool(found)

    def remove_temporaries(self) -> None:
        """Removes files that a dead chief was writing. Call it only right after taking the term.

        Raises:
          OSError: The directory cannot be changed.
        """
        # The directory itself may be a link: the user has chosen it.
        self._remove_temporaries(self._directory, self._storage.list(self._directory))
        for folder in layout.private_folders(self._directory):
            self._remove_temporaries(folder, self._names(folder))

    def roll_back(self, folder: str) -> None:
        """Settles an attempt of this process that has ended; `folder` is its pending folder's name.

        Raises:
          OSError: The directory cannot be changed; the next `finish_all` will do it.
          DistckptError: The directory now belongs to another process; see `Ownership.check`.
        """
        self._settle(layout.join(self._directory, folder))

    def finish_deletion(
        self, dead: Manifest | None, folder: str, names: Sequence[str] | None = None
    ) -> bool:
        """Finishes a deletion of this process, in the pending folder named `folder`.

        Returns:
          Whether the checkpoint is deleted. It is kept if somebody has pinned it meanwhile.

        Args:
          dead: The tombstone in the folder; None if there is none.
          folder: The folder's name.
          names: A listing of the directory; without it, the directory is listed.

        Raises:
          OSError: The directory cannot be changed; the next `finish_all` will do it.
          ManifestError: A damaged manifest has taken the place of the deleted one.
          DistckptError: The directory now belongs to another process; see `Ownership.check`.
        """
        path = layout.join(self._directory, folder)
        gone = True
        if dead is not None:
            files = self._files(dead.name, path)
            gone = self._bury(dead, files.manifest(entries=False), files, path, names)
        self._empty(path)
        self._storage.remove_tree(path)
        return gone

    def _remove_temporaries(self, folder: str, names: list[str]) -> None:
        for name in filter(is_temporary, names):
            self._storage.remove(layout.join(folder, name))

    def _names(self, folder: str) -> list[str]:
        """Returns the names in `folder`; none if the folder is a link."""
        return [] if self._storage.is_link(folder) else self._storage.list(folder)

    def _empty(self, folder: str) -> None:
        """Removes the files that were moved into `folder`, if there are several threads."""
        if self._threads > 1:
            paths = [layout.join(folder, name) for name in self._storage.list(folder)]
            tasks = [functools.partial(self._storage.remove, path) for path in paths]
            run_all(tasks, self._threads)

    def _folders(self, folder: str) -> list[str]:
        """Returns the names of the pending folders that have been moved to `folder`."""
        return [name for name in self._names(folder) if attempts.parse_pending_name(name)]

    def _abandoned(self, term: int, mine: str) -> list[str]:
        """Returns the folders of older terms in the abandoned folder, without `mine`."""
        root = layout.abandoned_root(self._directory)
        numbers = {name: layout.parse_abandoned_name(name) for name in self._names(root)}
        return [
            layout.join(root, name)
            for name, number in numbers.items()
            if number is not None and number <= term and layout.join(root, name) != mine
        ]

    def _unfinished(
        self, held_term: HeldTerm, abandoned: list[str], names: Sequence[str] | None
    ) -> list[tuple[str, str]]:
        """Returns (parent, name) of every folder to settle outside this term's folder."""
        names = self._storage.list(self._directory) if names is None else names
        pending = listings.classify(names).pending
        found = [
            (self._directory, p.folder)
            for p in pending
            if p.attempt.term <= held_term.term and p.folder not in held_term.in_flight
        ]
        for folder in abandoned:
            found += [(folder, name) for name in self._folders(folder)]
        return found

    def _remove_abandoned(self, folders: list[str]) -> None:
        """Removes settled folders, but not their parent.

        A successor may begin to work in the parent at any moment. Removing the whole parent, even
        when it looked empty, would take from the successor its list of files to take back.
        """
        if not self._storage.exists(layout.abandoned_root(self._directory)):
            return
        for folder in folders:
            self._storage.remove_tree(folder)

    def _settle(self, folder: str) -> None:
        if not self._storage.is_link(folder):  # files are moved into it
            self._finish(folder)
        self._storage.remove_tree(folder)

    def _finish(self, folder: str) -> None:
        tombstone = self._read(folder, TOMBSTONE)
        prepared = self._read(folder, layout.PREPARED_MANIFEST)
        about = tombstone or prepared
        if about is not None:
            files = self._files(about.name, folder)
            try:
                current = files.manifest()
            except ManifestError as error:
                _log.warning("%s; its files are left as they are.", error)
            else:
                if tombstone is not None:
                    self._bury(tombstone, current, files, folder)
                elif current is None or current.attempt != about.attempt:
                    self._take_back(about, current, files)
                else:
                    self._complete(current, files, folder)

    def _bury(
        self,
        dead: Manifest,
        current: Manifest | None,
        files: CheckpointFiles,
        folder: str,
        names: Sequence[str] | None = None,
    ) -> bool:
        """Deletes the checkpoint of a tombstone, but not one saved since under the same name.

        Returns:
          Whether it is deleted. If it is held, it is put back.
        """
        if current is None:
            own = (None, dead.index, dead.replaces.index if dead.replaces else None)
            if files.index() not in own:
                return True  # plain TensorFlow has saved this name again
            files.remove_index()
            files.flush()
            if self._put_back(dead, files, folder):
                return False
        keep = current.claims if current else frozenset()
        files.remove_data(keep=keep, also=dead.claims, names=names)
        files.flush()
        return True

    def _put_back(self, dead: Manifest, files: CheckpointFiles, folder: str) -> bool:
        """Undoes the deletion of a checkpoint if it is held; returns whether it did.

        Looks for pins only after index and manifest are gone (see `Holds`).
        """
        why = self._holds.why(dead.name)
        if why is None:
            return False
        index = layout.index_name(dead.name)
        missing = dead.claims - set(self._storage.list(self._directory))
        if missing or index not in self._storage.list(folder):
            _log.warning("%s is %s, but is already half deleted.", dead.name, why)
            return False
        self._ownership.check()
        for name, target in ((index, index), (TOMBSTONE, layout.manifest_name(dead.name))):
            if name != TOMBSTONE or dead.attempt:  # plain TensorFlow has no manifest
                self._storage.rename(
                    layout.join(folder, name), layout.join(self._directory, target)
                )
        files.flush()
        _log.info("%s is %s: it is not deleted.", dead.name, why)
        return True

    def _take_back(
        self, prepared: Manifest, current: Manifest | None, files: CheckpointFiles
    ) -> None:
        ours = frozenset(f.name for f in prepared.files)
        if current is None and (index := files.index()) is not None:
            if index == prepared.index:
                files.remove_index()
                files.flush()
            else:
                # Plain TensorFlow's index. It tells only which data files are TensorFlow's; the
                # workers' own states never are.
                ours = frozenset(filter(_is_never_foreign, ours))
        keep = current.claims if current else frozenset()
        files.remove_data(keep=keep | (frozenset(files.all()) - ours), also=ours)
        files.flush()

    def _complete(self, current: Manifest, files: CheckpointFiles, folder: str) -> None:
        """Finishes a switch of versions, forward if the new index is in place, else back."""
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
            if final is None:
                files.remove_manifest(layout.SWITCH_MANIFEST)
            else:
                settled = layout.join(folder, layout.FINAL_MANIFEST)
                self._ownership.stage(settled, manifest_json.render(final))
                path = layout.join(self._directory, layout.manifest_name(current.name))
                self._storage.rename(settled, path)
            files.flush()
            if final is None:
                files.remove_data(keep=frozenset(current.replaces.files))
                return
        assert final is not None
        files.remove_data(keep=final.claims)
        files.flush()

    def _read(self, folder: str, name: str) -> Manifest | None:
        path = layout.join(folder, name)
        try:
            found = manifest_json.parse(self._storage.read(path), path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ManifestError:
            return None  # it was being written: nothing had been moved yet
        pending = attempts.parse_pending_name(posixpath.basename(folder))
        if pending is None or pending.checkpoint != found.name:
            _log.warning("%s is about %s; somebody put it there. Ignored.", path, found.name)
            return None
        return found

    def _files(self, name: str, folder: str) -> CheckpointFiles:
        return CheckpointFiles(
            self._storage,
            self._directory,
            name,
            self._ownership,
            folder,
            durable=self._durable,
            threads=self._threads,
        )


def _is_never_foreign(file: str) -> bool:
    return bool(layout.parse_data_name(file) or listings.parse_worker_file(file))
