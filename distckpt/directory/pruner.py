"""Deletes checkpoints that retention gave up, and nothing else. Chief only, after the commit.

A managed checkpoint is deleted in three actions: its manifest becomes a tombstone in a pending
folder (it is then no longer committed), its files follow, the folder is removed. After a death in
between, `AttemptCleanup` finishes from the tombstone. A checkpoint of plain TensorFlow has no
manifest; its tombstone is made from the files found. If TensorFlow saved it over a checkpoint of
distckpt, the manifest of that checkpoint is removed first: next to a tombstone, it would look like
a version saved after the deletion.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from distckpt.core import attempts, layout, manifest_json
from distckpt.core.manifest import Commit, FileRecord, IndexRecord, Manifest
from distckpt.directory.attempt_cleanup import TOMBSTONE, AttemptCleanup
from distckpt.directory.checkpoint_files import CheckpointFiles, read_head
from distckpt.directory.checkpoint_state_file import newest_named
from distckpt.errors import DirectoryError, DistckptError
from distckpt.ownership.fencing import Ownership
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")

# Removing a file costs the disk or server more time than this process.
THREADS = 4
# The manifest, in a pending folder, of a version that plain TensorFlow has saved over.
_OUTDATED = "outdated.json"


class Pruner:
    """Deletes checkpoints of one directory. Only for the chief while it holds the term.

    Args:
      storage: Where the directory is.
      directory: Its path.
      ownership: This process's ownership of it.
      durable: Whether renames are forced to stable storage.
      threads: How many files of a checkpoint are removed at the same time; checkpoints are
        deleted one after the other.
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
        self._cleanup = AttemptCleanup(
            storage, directory, ownership, durable=durable, threads=threads
        )

    def prune(
        self,
        names: Iterable[str],
        after: Commit | None = None,
        listed: Sequence[str] | None = None,
    ) -> frozenset[str]:
        """Deletes the checkpoints `names`. Failures are only logged: the save has succeeded.

        Args:
          names: The checkpoints to delete.
          after: The commit after which retention no longer keeps them. If it is missing, a backup
            of this term has taken the directory's place, and nothing is deleted.
          listed: A listing of the directory, in which files of `names` are looked for that no
            manifest claims. Without it, the directory is listed for each name.

        Returns:
          The checkpoints that were not deleted, to be tried again.
        """
        return frozenset(name for name in names if not self._delete(name, after, listed))

    def _delete(self, name: str, after: Commit | None, listed: Sequence[str] | None) -> bool:
        """Deletes a checkpoint; returns whether it is gone, even if files are left."""
        pending = attempts.pending_name(name, self._ownership.held_term.next_attempt())
        folder = layout.join(self._directory, pending)
        buried = False
        try:
            self._ownership.enter(pending)
            self._check_commit(after)
            self._check_is_not_newest(name)
            dead = self._bury(name, folder)
            buried = True
            buried = self._cleanup.finish_deletion(dead, pending, listed)
        except (OSError, DistckptError) as error:
            _log.warning("%s in %s was not deleted: %s", name, self._directory, error)
        finally:
            # The next `AttemptCleanup.finish_all` settles what is left of it.
            self._ownership.held_term.in_flight.discard(pending)
        return buried

    def _check_commit(self, commit: Commit | None) -> None:
        """Checks that a commit is in the directory of the pending folder."""
        if commit is None:
            return
        found = read_head(self._storage, self._directory, commit.name)
        if found is None or found.commit != commit:
            raise DirectoryError(
                f"{commit.name}, which was committed before, is missing. Another "
                "directory, perhaps a backup, has taken the place of this one."
            )

    def _check_is_not_newest(self, name: str) -> None:
        """Checks that plain TensorFlow would not restore the checkpoint.

        TensorFlow's file was written just before. It names the checkpoint if an older backup has
        taken the directory's place since.
        """
        if newest_named(self._storage, self._directory) == name:
            raise DirectoryError(
                f"{layout.POINTER_FILE} names it as the newest checkpoint. Somebody, perhaps with "
                "a backup, has replaced that file."
            )

    def _bury(self, name: str, folder: str) -> Manifest | None:
        """Puts the tombstone into `folder` and returns it; None if there is nothing to delete."""
        files = CheckpointFiles(
            self._storage, self._directory, name, self._ownership, folder, durable=self._durable
        )
        manifest, index = files.manifest(entries=False), files.index()
        if manifest is not None and (index is None or manifest.tells_of(index)):
            self._remove_manifest(files, TOMBSTONE, folder)
            return manifest
        if index is None:
            return None  # another process has deleted it
        # Plain TensorFlow wrote it, over a checkpoint of ours if there is a manifest.
        claims = manifest.claims if manifest else frozenset()
        made_up = _made_up(name, index, sorted({*files.all(), *claims}))
        if manifest is not None:
            self._remove_manifest(files, _OUTDATED, folder)
        path = layout.join(folder, TOMBSTONE)
        self._ownership.stage(path, manifest_json.render(made_up))
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
        term=0,
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
