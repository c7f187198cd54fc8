"""Retries reads, because errors on a network may pass.

Otherwise a short failure of the storage on one worker would make all workers treat the newest
checkpoint as damaged and restore an older one.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from distckpt.runtime import host

_log = logging.getLogger("distckpt")
_T = TypeVar("_T")

# How long one reader waits for errors to pass, in total, in seconds.
PATIENCE = 10.0
# Seconds between two attempts.
_PAUSE = 1.0
# Temporary errors of a network, or of a disk behind it.
_MAY_PASS = frozenset(
    {
        errno.EIO,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    }
)


class Reader(Protocol):
    """The read-only part of a `Storage`."""

    def list(self, directory: str) -> list[str]:
        """See `Storage.list`."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See `Storage.read`."""

    def size(self, path: str) -> int:
        """See `Storage.size`."""


class RetryingReader:
    """Reads through a storage, and retries failures. Any process; thread-safe.

    An error is raised when all waits of this reader together have lasted `PATIENCE`.

    Args:
      storage: Where to read.
    """

    def __init__(self, storage: Reader) -> None:
        self._storage = storage
        self._left = PATIENCE

    def list(self, directory: str) -> list[str]:
        """See `Storage.list`."""
        return self._patiently(lambda: self._storage.list(directory))

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See `Storage.read`."""
        return self._patiently(lambda: self._storage.read(path, offset, size))

    def size(self, path: str) -> int:
        """See `Storage.size`."""
        return self._patiently(lambda: self._storage.size(path))

    def _patiently(self, look: Callable[[], _T]) -> _T:
        while True:
            try:
                return look()
            except OSError as error:
                if error.errno not in _MAY_PASS or self._left <= 0:
                    raise
                _log.warning("%s; trying again.", error)
            self._left -= _PAUSE
            host.sleep(_PAUSE)
