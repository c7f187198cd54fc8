"""Changes a directory by hand, between jobs: takes its epoch, as a job does, and gives it back.

So no job is raced: one that may still be running is left alone, unless the caller says that it has
ended; one that is started meanwhile takes a higher epoch, and stops the caretaker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distckpt.core import layout
from distckpt.errors import DirectoryInUseError, DistckptError, ManifestError
from distckpt.roles import owner
from distckpt.roles.books import Books
from distckpt.roles.leftovers import Leftovers
from distckpt.roles.ownership import Ownership
from distckpt.roles.pruner import Pruner
from distckpt.roles.recovery import Recovery
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


class Caretaker:
    """Holds a directory for a short time, to change it. A context manager.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      take_over: Whether to go on although its last owner may be running.

    Raises:
      DirectoryInUseError: (on entering) A job may be running there, or has just begun.
      OSError: (on entering) The directory cannot be written.
    """

    def __init__(self, storage: Storage, directory: str, *, take_over: bool = False) -> None:
        self._storage = storage
        self._directory = directory
        self._take_over = take_over
        self.ownership = Ownership(storage, directory, durable=True)
        self._recovery = Recovery(storage, directory, self.ownership, durable=True)

    def __enter__(self) -> Caretaker:
        """Takes the directory, and settles what a dead job has left unfinished."""
        before = owner.find(self._storage, self._directory)
        if before is not None and before.may_run and not self._take_over:
            raise DirectoryInUseError(in_use(self._directory, before))
        self.ownership.take_from(before)
        self._storage.freshen(self._directory)
        self._recovery.finish_all()
        self.ownership.forget_older()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the directory back."""
        self.ownership.release()

    def clean_up(self, now: float) -> None:
        """Removes all that is left over (see `Leftovers`).

        Raises:
          OSError: Something cannot be removed.
          SupersededError: A job has begun meanwhile.
        """
        self.ownership.check()
        self._recovery.remove_temporaries()
        Leftovers(self._storage, self._directory, now).remove_rest()

    def prune(self, books: Books) -> None:
        """Lets retention decide, and deletes; what fails is logged.

        Raises:
          OSError: The directory cannot be written.
          SupersededError: A job has begun meanwhile.
        """
        pruner = Pruner(self._storage, self._directory, self.ownership, durable=True)
        books.delete = pruner.prune
        with self.pending("prune") as (_, folder):
            books.prune(folder)

    @contextmanager
    def pending(self, name: str) -> Iterator[tuple[str, str]]:
        """Yields the id of a new attempt and the path of its pending folder, which goes afterwards.

        Args:
          name: Of the checkpoint that it is about.
        """
        attempt = self.ownership.next_attempt()
        pending = layout.pending_name(name, attempt)
        self.ownership.enter(pending)
        try:
            folder = layout.join(self._directory, pending)
            self._storage.write(layout.join(folder, layout.PROBE_FILE), b"", durable=False)
            yield attempt, folder
        finally:
            self._settle(lambda: self._recovery.roll_back(pending))
            self.ownership.in_flight.discard(pending)

    def _settle(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, ManifestError, DistckptError) as error:
            _log.warning("%s was not tidied up: %s", self._directory, error)


def in_use(directory: str, who: owner.Owner) -> str:
    """Returns what to say of a directory whose owner may be running."""
    return (
        f"A job may be saving to {directory}: {who}. Stop it first. If it has ended, say so with "
        "--take-over; should it be running all the same, it stops at its next save."
    )
