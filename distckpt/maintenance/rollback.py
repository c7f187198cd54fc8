"""Makes an older checkpoint the newest: sets later ones aside. Only for the directory's owner.

    1  ``.distckpt/rollback.json`` names the checkpoints to set aside: they no longer count
    2  TensorFlow's file is written: plain TensorFlow finds the older checkpoint, too
    3  the files of each, newest first, move into a folder of this term: manifest, index, data
    4  that folder is renamed to its final name in the directory
    5  the file of action 1 is removed

If the process dies after 1, that file remains; the directory's next owner, a job with its first
save or a command, takes the folder over and goes on. As with all renames, this stops a replaced
owner that was only paused: the folder that it renames into no longer exists (see `ownership`).
Nothing is deleted.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from distckpt.core import layout, listings, rollback_record
from distckpt.core.manifest import Manifest
from distckpt.core.rollback_record import Leaving, Rollback
from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.directory.checkpoint_files import CheckpointFiles, read_index_record, read_manifest
from distckpt.directory.holds import Holds
from distckpt.errors import (
    CheckpointDamagedError,
    ConfigurationError,
    DirectoryError,
    ManifestError,
)
from distckpt.maintenance.pending_folder import pending_folder
from distckpt.ownership.fencing import Ownership
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


class Rollbacks:
    """Begins and finishes rollbacks of one directory.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      ownership: This process's ownership of it, which it must have.
      durable: Whether each action is forced to stable storage before the next.
    """

    def __init__(
        self, storage: Storage, directory: str, ownership: Ownership, *, durable: bool
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._ownership = ownership
        self._durable = durable
        self._cleanup = AttemptCleanup(storage, directory, ownership, durable=durable)
        self._path = layout.rollback_path(directory)
        self._root = layout.set_aside_root(directory)

    def run(self, what: Rollback) -> str:
        """Does a rollback; returns the path of the set-aside folder.

        Raises:
          SupersededError: Another process has taken over the directory; it finishes the rollback.
          OSError: The storage failed; the next owner finishes the rollback.
        """
        with self._pending() as (_, folder):
            staged = layout.join(folder, layout.ROLLBACK_FILE)
            self._ownership.stage(staged, rollback_record.render(what))
            self._storage.rename(staged, self._path)
            self._flush(layout.join(self._directory, layout.PRIVATE_FOLDER))
        self.finish()
        return layout.join(self._directory, what.folder)

    def finish(self) -> Rollback | None:
        """Finishes an unfinished rollback. May be called repeatedly.

        Returns:
          The rollback; None if none has begun.

        Raises:
          DirectoryError: The file of the rollback is damaged, or a link is in the way.
          SupersededError: Another process has taken over the directory, and will finish it.
          OSError: The storage failed.
        """
        what = self._begun()
        if what is None:
            return None
        _log.info("%s goes back to %s; setting later checkpoints aside.", self._directory, what.to)
        target = layout.join(self._directory, what.folder)
        mine = self._take_over()
        with self._pending() as (_, folder):
            # If it exists, only the file is left to remove, except on object stores, where a
            # folder is renamed file by file.
            if not self._storage.exists(target) or self._storage.list(mine):
                self._point(what, folder)
                for one in what.leaving:
                    self._set_aside(one, mine)
                if what.before:
                    pointer = layout.join(mine, layout.POINTER_FILE)
                    self._ownership.stage(pointer, what.before.encode())
                self._ownership.check()
                self._storage.rename(mine, target)
                self._flush(self._root, self._directory)
            self._storage.rename(self._path, layout.join(folder, layout.ROLLBACK_FILE))
            self._flush(layout.join(self._directory, layout.PRIVATE_FOLDER))
        if not self._storage.list(mine):
            self._storage.remove_tree(mine)
        return what

    def delete(self, folder: str) -> None:
        """Deletes a set-aside folder; `folder` is the path that `run` has returned.

        The folder moves into a pending folder, which the next owner removes if this one dies.

        Raises:
          ConfigurationError: One of its checkpoints was pinned or leased just before the rollback.
          SupersededError: Another process has taken over the directory.
          OSError: The storage failed.
        """
        held = Holds(self._storage, self._directory).held()
        for name in listings.classify(self._storage.list(folder)).checkpoints:
            if name in held:
                raise ConfigurationError(
                    f"{name} is {held[name]}, so nothing was deleted; it is in {folder}."
                )
        with self._pending() as (_, pending):
            self._ownership.check()
            self._storage.rename(folder, layout.join(pending, "set-aside"))
            self._flush(self._directory)

    def _pending(self) -> AbstractContextManager[tuple[str, str]]:
        here = (self._storage, self._directory, self._ownership, self._cleanup)
        return pending_folder(*here, "rollback")

    def _begun(self) -> Rollback | None:
        try:
            return rollback_record.parse(self._storage.read(self._path), self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _take_over(self) -> str:
        """Returns this term's folder, with what an older term has already set aside."""
        mine = layout.set_aside_folder(self._directory, self._ownership.term or 0)
        for folder in (self._root, mine):
            if self._storage.is_link(folder):
                raise DirectoryError(f"{folder} is a link; checkpoints would be moved elsewhere.")
        for name in self._storage.list(self._root):
            term = layout.parse_term_name(f"{name}.json")
            if term is not None and term < (self._ownership.term or 0):
                self._storage.rename(layout.join(self._root, name), mine)
        # Before the pending folder is made, because that checks the term: see `ownership`.
        self._storage.make_directory(mine)
        self._flush(
            self._root, layout.join(self._directory, layout.PRIVATE_FOLDER), self._directory
        )
        return mine

    def _point(self, what: Rollback, folder: str) -> None:
        """Makes TensorFlow's file name the older checkpoint, unless it names something newer."""
        path = layout.join(self._directory, layout.POINTER_FILE)
        try:
            data = self._storage.read(path)
        except FileNotFoundError:
            data = b""
        if what.pointer_after(data) == data and not self._names_what_leaves(what, data):
            return
        staged = layout.join(folder, layout.POINTER_FILE)
        self._ownership.stage(staged, what.pointer.encode())
        self._storage.rename(staged, path)
        self._flush(self._directory)

    def _names_what_leaves(self, what: Rollback, data: bytes) -> bool:
        """Returns whether TensorFlow's file names a checkpoint to set aside."""
        try:
            latest = checkpoint_state.parse(data).latest if data else None
        except CheckpointDamagedError:
            return True
        return any(one.name == latest and self._is_there(one) for one in what.leaving)

    def _is_there(self, one: Leaving) -> bool:
        index = read_index_record(self._storage, self._directory, layout.index_name(one.name))
        return index is not None and index.crc32c == one.index_crc32c

    def _set_aside(self, one: Leaving, mine: str) -> None:
        """Moves what is left of a checkpoint into `mine`, but not a later save of the same name."""
        files = CheckpointFiles(
            self._storage, self._directory, one.name, self._ownership, mine, durable=self._durable
        )
        manifest = layout.manifest_name(one.name)
        has_manifest = self._storage.exists(layout.join(self._directory, manifest))
        index = files.index()
        is_another = index is not None and index.crc32c != one.index_crc32c
        moved = self._storage.list(mine)
        if is_another:
            _log.warning("%s was saved again since; the new save is kept.", one.name)
            if manifest not in moved and layout.index_name(one.name) not in moved:
                return
        claims = self._claims(one.name, mine)
        if has_manifest:
            files.remove_manifest(manifest)
            self._flush(mine, self._directory)
        if index is not None and not is_another:
            files.remove_index()
            self._flush(mine, self._directory)
        files.remove_data(keep=frozenset(), also=claims)
        self._flush(mine, self._directory)

    def _claims(self, name: str, mine: str) -> frozenset[str]:
        """Returns the files of a checkpoint by its manifest, which may have been moved already."""
        for folder in (self._directory, mine):
            try:
                found: Manifest | None = read_manifest(self._storage, folder, name, entries=False)
            except (ManifestError, IsADirectoryError):
                continue
            if found is not None:
                return found.claims
        return frozenset()

    def _flush(self, *folders: str) -> None:
        if self._durable:
            for folder in folders:
                self._storage.flush_directory(folder)
