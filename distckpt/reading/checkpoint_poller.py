"""Notices new checkpoints in a directory. Any process; never writes."""

from __future__ import annotations

from typing import NamedTuple

from distckpt.core import layout
from distckpt.directory.catalog import Catalog
from distckpt.errors import DistckptError
from distckpt.runtime import host
from distckpt.storage.base import Storage
from distckpt.storage.lenient_reads import content_of
from distckpt.storage.retrying_reader import RetryingReader


class Arrival(NamedTuple):
    """A checkpoint: its name, and the checksum of its index, which identifies its version."""

    name: str
    index_crc32c: int


class CheckpointPoller:
    """Compares a directory with the checkpoints already seen in it.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
    """

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._looked: object = None
        self._waiting: list[Arrival] = []
        self._seen: set[Arrival] = set()

    def newest(self) -> Arrival | None:
        """Returns the checkpoint that a restore would try first; None if there is none.

        Raises:
          OSError: The directory cannot be read.
        """
        catalog = self._catalog()
        name = catalog.view(host.now()).latest
        return Arrival(name, catalog.index_crc32c(name)) if name is not None else None

    def next(self, *, every: bool) -> Arrival | None:
        """Returns the next checkpoint that has not been returned yet; None if there is none.

        Args:
          every: Whether older checkpoints are returned, too, in order; else only the newest is.

        Raises:
          OSError: The directory cannot be read.
          CheckpointDamagedError: A checkpoint is just being replaced.
        """
        look = self._glance()
        if look == self._looked and not self._waiting:
            return None
        if every:
            if look != self._looked:
                self._waiting = [a for a in self._in_order() if a not in self._seen]
            found = self._waiting.pop(0) if self._waiting else None
        else:
            found = self.newest()
        self._looked = look
        if found is None or found in self._seen:
            return None
        self._seen.add(found)
        return found

    def _glance(self) -> object:
        """Returns something that changes with each commit and costs little to read."""
        names = self._storage.list(self._directory)
        pointer = layout.join(self._directory, layout.POINTER_FILE)
        return names, content_of(self._storage, pointer)

    def _in_order(self) -> list[Arrival]:
        """Returns all checkpoints that may be restored, oldest first."""
        catalog = self._catalog()
        found = []
        for name in reversed(catalog.candidates(host.now())):
            try:
                found.append(Arrival(name, catalog.index_crc32c(name)))
            except DistckptError:
                continue  # it has just been deleted
        return found

    def _catalog(self) -> Catalog:
        return Catalog(RetryingReader(self._storage), self._directory)
