"""Remembers who owned the directory at a restore, for the first save after it.

A job that has restored but not saved has no term, so other jobs cannot see it. If it is delayed, a
newer job may restore and save, or somebody may roll back to an older checkpoint. Then the first job
no longer has the newest state. But its first save would take over the directory, because a new term
is always the highest. So it compares the owner with the one at its restore.
"""

from __future__ import annotations

import dataclasses

from distckpt.ownership import owner_record
from distckpt.ownership.held_terms import HeldTerm, HeldTerms
from distckpt.ownership.owner_record import Owner
from distckpt.ownership.seen_owner import SeenOwner
from distckpt.runtime import host
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader


class RestoreMemory:
    """One manager's memory of who owned the directory when it restored. Chief only.

    Args:
      storage: The directory's storage.
      directory: The directory's path.
      held_terms: The terms of this process.
    """

    def __init__(self, storage: Storage, directory: str, held_terms: HeldTerms) -> None:
        self._storage = storage
        self._directory = directory
        self._held_terms = held_terms
        self._looked: SeenOwner | None = None
        self._seen: SeenOwner | None = None

    def look(self) -> None:
        """Notes who owns the directory, before the restore looks for checkpoints.

        Only reads. So an old listing may show an earlier owner. Then the first save is refused, and
        the next start of the job succeeds.

        Raises:
          OSError: The directory cannot be read.
        """
        self._looked = SeenOwner(self._owner(), host.now())

    def _owner(self) -> Owner | None:
        try:
            return owner_record.find(RetryingReader(self._storage), self._directory)
        except (NotADirectoryError, PermissionError):
            return None  # the process may still restore; a save will say if it cannot save

    def restored(self) -> None:
        """Remembers the owner that `look` noted: all workers hold the newest state of that time."""
        assert self._looked is not None, "look() comes first"
        self._keep(self._looked)

    def inherit(self, mine: HeldTerm) -> None:
        """Remembers, in a forked child, its parent's term: the child holds the same state."""
        self._seen = SeenOwner(mine.owner, mine.owner.since, "took it")

    def of_first_save(self, last: HeldTerm | None) -> SeenOwner | None:
        """Returns the owner at the restore, for a manager without a term; None without a restore.

        A manager that has not restored, such as one for the best checkpoints next to one for all,
        gets the owner at the restore of another manager of this process.

        Args:
          last: The last term of this process in the directory; None if there is none.
        """
        shared = self._held_terms.seen_at(self._directory) if last is None else None
        return self._seen or shared

    def refused(self, seen: SeenOwner, by: Owner) -> None:
        """Remembers, until the next restore, that another process has come since."""
        self._keep(dataclasses.replace(seen, successor=by))

    def told(self, seen: SeenOwner) -> None:
        """Remembers that nobody owns the directory, and that the program knows it was cleared."""
        self._keep(dataclasses.replace(seen, owner=None))

    def _keep(self, seen: SeenOwner) -> None:
        self._seen = seen
        self._held_terms.saw(self._directory, seen)
