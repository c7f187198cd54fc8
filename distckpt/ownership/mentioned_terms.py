"""The terms that a directory mentions. Only reads.

A new owner takes a term above them all, so its commits are the newest, even if checkpoints were
copied there from another directory, whose job may have been restarted more often.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from distckpt.core import layout, listings, manifest_json
from distckpt.errors import ManifestError
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader

_log = logging.getLogger("distckpt")

# Size and modification time of a file: while they are unchanged, so is the content.
_State = tuple[int, float]


class MentionedTerms:
    """Finds the terms that one directory mentions; reads each manifest once.

    Args:
      storage: The directory's storage.
      directory: The directory's path.

    Attributes:
      names: What `highest` has found in the directory.
    """

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._read: dict[str, tuple[_State, int]] = {}
        self.names: list[str] = []

    def highest(self) -> int:
        """Returns the highest term of a manifest or pending folder; 0 if there is none.

        Raises:
          OSError: The directory cannot be read.
        """
        self.names = self._storage.list(self._directory)
        listing = listings.classify(self.names)
        pending = [p.attempt.term for p in listing.pending]
        named = [name for name, files in listing.checkpoints.items() if files.has_manifest]
        self._read = {name: read for name, read in self._read.items() if name in named}
        return max([0, *pending, *map(self._term_of, named)])

    def highest_abandoned(self) -> int:
        """Returns the highest term in the folder of abandoned attempts; 0 if there is none.

        Raises:
          OSError: The directory cannot be read.
        """
        return max(self._abandoned(), default=0)

    def _abandoned(self) -> Iterator[int]:
        root = layout.abandoned_root(self._directory)
        for name in self._storage.list(root):
            term = layout.parse_abandoned_name(name)
            if term is not None:
                yield term
                inside = listings.classify(self._storage.list(layout.join(root, name)))
                yield from (pending.attempt.term for pending in inside.pending)

    def _term_of(self, name: str) -> int:
        """Returns the term of a manifest; 0 if it cannot be read."""
        path = layout.join(self._directory, layout.manifest_name(name))
        try:
            state = self._state(path)
            if state is None or self._read.get(name, (None, 0))[0] != state:
                term = self._parsed(path)
                if state is None:
                    return term
                self._read[name] = state, term
        except FileNotFoundError:
            return 0  # it was just deleted
        except OSError as error:
            _log.warning("%s is left out: %s", path, error)
            return 0
        return self._read[name][1]

    def _state(self, path: str) -> _State | None:
        modified = self._storage.modified(path)
        return None if modified is None else (self._storage.size(path), modified)

    def _parsed(self, path: str) -> int:
        try:
            reader = RetryingReader(self._storage)
            head = manifest_json.parse_head(reader.read(path, 0, manifest_json.HEAD_SIZE), path)
            if head is None:
                head = manifest_json.parse(reader.read(path), path, entries=False)
            return head.term
        except (ManifestError, IsADirectoryError):
            return 0
