"""Warns before a manager replaces a good checkpoint that is not its own."""

from __future__ import annotations

import logging
from collections.abc import Container

from distckpt.directory.catalog import Catalog
from distckpt.errors import DistckptError

_log = logging.getLogger("distckpt")


class ReplacementWarning:
    """Knows which checkpoints one manager has written or restored. Used by the chief.

    A program that continues in a directory without a restore begins numbering at 1, as in
    TensorFlow, and so replaces one good checkpoint after the other.

    Args:
      catalog: Reads the directory.
      directory: Its path, for the log.
    """

    def __init__(self, catalog: Catalog, directory: str) -> None:
        self._catalog = catalog
        self._directory = directory
        self._own: set[str] = set()
        self._warned = False

    def restored(self, name: str) -> None:
        """Notes that the manager has restored checkpoint `name`."""
        self._own.add(name)

    def begins(self, name: str, damaged: Container[str]) -> None:
        """Called before the manager saves `name`. Warns if necessary; never raises.

        Args:
          name: The checkpoint.
          damaged: Checkpoints that a restore has skipped; replacing them is intended.
        """
        known = name in self._own
        self._own.add(name)
        if known or self._warned or name in damaged or not self._is_good(name):
            return
        self._warned = True
        _log.warning(
            "This save replaces %s in %s, which this manager has neither written nor restored. "
            "To go on from the newest checkpoint, call restore_or_initialize() before the first "
            "save(). To keep the existing checkpoints, use another directory, or pass an "
            "unused checkpoint_number.",
            name,
            self._directory,
        )

    def _is_good(self, name: str) -> bool:
        """Returns whether `name` exists and is not known to be damaged."""
        try:
            self._catalog.index_crc32c(name)
            self._catalog.head(name)
            return name not in self._catalog.quarantined()
        except (OSError, DistckptError):
            return False
