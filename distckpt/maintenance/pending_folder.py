"""A pending folder for a short change other than a save. Only for the directory's owner."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from distckpt.core import attempts, layout
from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.errors import DistckptError
from distckpt.ownership.fencing import Ownership
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


@contextmanager
def pending_folder(
    storage: Storage, directory: str, ownership: Ownership, cleanup: AttemptCleanup, name: str
) -> Iterator[tuple[str, str]]:
    """Yields the id of a new attempt and the path of its pending folder, then removes it.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      ownership: This process's ownership of it.
      cleanup: Settles the folder.
      name: The subject of the change: a checkpoint, or another word.

    Raises:
      SupersededError: Another process has taken over the directory.
      OSError: The folder cannot be made.
    """
    attempt = ownership.held_term.next_attempt()
    pending = attempts.pending_name(name, attempt)
    ownership.enter(pending)
    try:
        folder = layout.join(directory, pending)
        storage.write(layout.join(folder, layout.PROBE_FILE), b"", durable=False)
        yield attempt, folder
    finally:
        try:
            cleanup.roll_back(pending)
        except (OSError, DistckptError) as error:
            _log.warning("%s was not tidied up: %s", directory, error)
        ownership.held_term.in_flight.discard(pending)
