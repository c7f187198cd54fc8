"""Takes the term of a directory to change it between jobs, and gives the term back.

So the change never races with a job: a job that may still be running is left alone, unless the
caller says that it has ended; a job that is started meanwhile takes a higher term, and this
process stops.
A job that has restored but not saved yet cannot be seen: if the newest checkpoint may have
changed, the job's first save is refused (see `ownership.restore_memory`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distckpt.core.rollback_record import Rollback
from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.directory.pruner import Pruner
from distckpt.errors import DirectoryInUseError
from distckpt.maintenance.leftovers import Garbage
from distckpt.maintenance.pending_folder import pending_folder
from distckpt.maintenance.rollback import Rollbacks
from distckpt.ownership import owner_record
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.owner_record import Owner
from distckpt.storage.base import Storage


class ExclusiveAccess:
    """Holds a directory for a short time, to change it. A context manager.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      take_over: Whether to go on even if the last owner may be running.
      only_deletes: Whether the newest checkpoint stays the newest. If so, a job that has restored
        but not saved yet can continue; otherwise its first save is refused.

    Attributes:
      rollbacks: Does rollbacks there.
      finished: Another process's unfinished rollback that was finished on entering; None if there
        was none.

    Raises:
      DirectoryInUseError: (on entering) A job may be running there, or has just begun.
      OSError: (on entering) The directory cannot be written.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        *,
        take_over: bool = False,
        only_deletes: bool = False,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._take_over = take_over
        self._only_deletes = only_deletes
        self.ownership = Ownership(storage, directory, durable=True)
        self._cleanup = AttemptCleanup(storage, directory, self.ownership, durable=True)
        self.rollbacks = Rollbacks(storage, directory, self.ownership, durable=True)
        self.finished: Rollback | None = None

    def __enter__(self) -> ExclusiveAccess:
        """Takes the directory, and settles a dead job's unfinished attempts."""
        before = check_not_in_use(self._storage, self._directory, take_over=self._take_over)
        self.ownership.take_from(before, only_deletes=self._only_deletes)
        self._storage.freshen(self._directory)
        self._cleanup.finish_all()
        self.finished = self.rollbacks.finish()
        self.ownership.forget_older()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the directory back."""
        self.ownership.release()

    def clean_up(self, now: float) -> None:
        """Removes all leftovers (see `Garbage`).

        Raises:
          OSError: Something cannot be removed.
          SupersededError: A job has begun meanwhile.
        """
        self.ownership.check()
        self._cleanup.remove_temporaries()
        Garbage(self._storage, self._directory, now).remove_rest()

    def prune(self, managed: ManagedCheckpoints) -> None:
        """Deletes what retention does not keep; failures are only logged.

        Raises:
          OSError: The directory cannot be written.
          SupersededError: A job has begun meanwhile.
        """
        pruner = Pruner(self._storage, self._directory, self.ownership, durable=True)
        managed.delete = pruner.prune
        with self.pending("prune") as (_, folder):
            managed.prune(folder)

    @contextmanager
    def pending(self, name: str) -> Iterator[tuple[str, str]]:
        """Yields the id of a new attempt and the path of its pending folder, then removes it.

        Args:
          name: The checkpoint's name.
        """
        here = (self._storage, self._directory, self.ownership, self._cleanup)
        with pending_folder(*here, name) as (attempt, folder):
            yield attempt, folder


def check_not_in_use(storage: Storage, directory: str, *, take_over: bool) -> Owner | None:
    """Checks that no job is running; returns the last owner. Any process; never writes.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      take_over: Whether a last owner that may be running counts as ended.

    Raises:
      DirectoryInUseError: A job may be running there.
    """
    owner = owner_record.find(storage, directory)
    if owner is not None and owner.may_run and not take_over:
        raise DirectoryInUseError(in_use(directory, owner))
    return owner


def in_use(directory: str, who: Owner) -> str:
    """Returns the error message for a directory whose owner may be running."""
    return (
        f"A job may be saving to {directory}: {who}. Stop it first. If it has ended, repeat the "
        "command with --take-over. (If it is running after all, its next save then fails.)"
    )
