"""Coordination through files in a directory that all workers see; no TensorFlow cluster is needed.

    <directory>/<run id>/
      key.<key>          one published value; "/" in the key is written "="
      worker-00001       worker 1's heartbeat (see `shared_directory_heartbeats`)

A file of a key is created once, complete, and never changed, so an existing file has the value. The
run id is part of every path, so a restarted job never meets files of its predecessor. On network
file systems that cache directories, the cache may delay a key (for NFS, see ``acdirmin`` in
nfs(5)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from distckpt import errors
from distckpt.coordination import base
from distckpt.coordination.shared_directory_heartbeats import Heartbeats
from distckpt.runtime import host, portable, uncopyable
from distckpt.storage import obstacles
from distckpt.storage.local import LocalStorage

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05
_MOST_LOOKS = 8  # keys that are looked at one by one


class SharedDirectory(base.Coordinator):
    """One worker of a job whose workers share a directory.

    Creates ``<directory>/<run_id>`` and starts a daemon thread for the heartbeat. After the job has
    ended, its files may be deleted.

    Args:
      directory: A local or network directory that all workers see under some path.
      run_id: Letters, digits, "_", "-" and "."; the same on all workers of this start of the job,
        and different in every other start.
      index: This worker's index, from 0 (the chief).
      count: The number of workers.
      heartbeat_seconds: Seconds between two heartbeats.
      lost_after: Seconds without a heartbeat after which a worker counts as dead. A worker that has
        never come is not dead but missing.

    Raises:
      errors.ConfigurationError: An argument is invalid, or this worker has already used `run_id`.
      errors.DirectoryError: The directory cannot be created or written.
    """

    def __init__(
        self,
        directory: str,
        run_id: str,
        index: int,
        count: int,
        *,
        heartbeat_seconds: float = 1.0,
        lost_after: float = 10.0,
    ) -> None:
        _check_arguments(run_id, index, count, heartbeat_seconds, lost_after)
        self._index = index
        self._count = count
        self._storage = LocalStorage()
        self._directory = portable.absolute(os.path.join(directory, run_id))
        try:
            self._storage.make_directory(self._directory)
            self._heartbeats = Heartbeats(
                self._directory, index, count, heartbeat_seconds, lost_after
            )
        except OSError as error:
            if (known := _unwritable(self.name(index), self._directory, error)) is not None:
                raise known from error
            raise errors.DirectoryError(
                f"worker {index} cannot use {self._directory} for coordination: "
                f"{obstacles.find(self._storage, self._directory) or f'{errors.explain(error)}.'} "
                "It must be a directory that every worker can write."
            ) from error

    @property
    def index(self) -> int:
        """See base."""
        return self._index

    @property
    def count(self) -> int:
        """See base."""
        return self._count

    def publish(self, key: str, value: str) -> None:
        """See base. Raises WorkerLostError naming this worker if the directory cannot be used.

        Raises:
          errors.StorageFullError: No space is left.
          errors.DirectoryError: The file system is mounted for reading only.
        """
        with self._engine(), contextlib.suppress(FileExistsError):
            # A job does not survive a power failure, so its keys need not, either.
            self._storage.create(self._path(key), _encode(value), durable=False)

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """See base. Raises WorkerLostError naming this worker if the directory cannot be used."""
        found = self._wait(keys, timeout, 1)
        return found[0] if found else None

    def fetch_all(self, keys: Sequence[str], timeout: float) -> list[tuple[str, str]]:
        """See base. Raises as `fetch`."""
        return self._wait(keys, timeout, len(keys))

    def _wait(self, keys: Sequence[str], timeout: float, most: int) -> list[tuple[str, str]]:
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while True:
            found: list[tuple[str, str]] = []
            with self._engine():
                for key in self._present(keys):
                    if len(found) < most and (value := self._look(key)) is not None:
                        found.append((key, value))
            remaining = deadline - time.monotonic()
            if found or remaining <= 0:
                return found
            time.sleep(min(pause, remaining))
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    def lost(self) -> dict[int, str]:
        """See base. Answers at once, with the state at the last heartbeat."""
        return self._heartbeats.lost()

    def has_joined(self, index: int) -> bool:
        """See base: whether its heartbeat file has ever existed."""
        return self._heartbeats.has_shown_up(index)

    def forget(self, keys: Sequence[str]) -> None:
        """See base."""
        for key in keys:
            with contextlib.suppress(OSError):
                self._storage.remove(self._path(key))

    def close(self) -> None:
        """Stops the heartbeat and tells the other workers that this worker has left."""
        self._heartbeats.stop()

    def _present(self, keys: Sequence[str]) -> Sequence[str]:
        """Returns those of `keys` that may be published; one listing replaces many looks."""
        if len(keys) <= _MOST_LOOKS:
            return keys
        names = set(os.listdir(self._directory))
        return [key for key in keys if os.path.basename(self._path(key)) in names]

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuses to be copied or pickled."""
        uncopyable.refuse(self)

    def _look(self, key: str) -> str | None:
        try:
            return _decode(self._storage.read(self._path(key)))
        except FileNotFoundError:
            return None

    def _path(self, key: str) -> str:
        # One flat name, so that "a" and "a/b" can both be keys and ".." leads nowhere.
        return os.path.join(self._directory, "key." + key.replace("/", "="))

    @contextlib.contextmanager
    def _engine(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            me = self.name(self._index)
            raise _unwritable(me, self._directory, error) or errors.WorkerLostError(
                f"{me} cannot use {self._directory} for coordination: {error}"
            ) from error


def _unwritable(worker: str, directory: str, error: OSError) -> errors.DistckptError | None:
    """Returns the error for a directory that can be read, but not written; None for others."""
    what = f"{directory}, where the workers exchange messages"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.StorageFullError(
            f"{worker} ({host.name()}) has no space left in {what} ({error}). The last checkpoint "
            "is untouched. Free some space there, and call the method again."
        )
    if error.errno == errno.EROFS:
        return errors.DirectoryError(
            f"{worker} ({host.name()}) cannot write to {what} ({error}). Mount the file system for "
            "writing, and call the method again."
        )
    return None


def _check_arguments(
    run_id: str, index: int, count: int, heartbeat_seconds: float, lost_after: float
) -> None:
    if not _SAFE_NAME.fullmatch(run_id):
        raise errors.ConfigurationError(
            f"run_id {run_id!r} must be made of letters, digits, '_', '-' and '.', and not begin "
            "with '.'"
        )
    if not 0 <= index < count:
        raise errors.ConfigurationError(f"no worker {index} in a job of {count}")
    if not 0 < 3 * heartbeat_seconds <= lost_after:
        raise errors.ConfigurationError(
            f"lost_after ({lost_after:g} s) must be at least three times heartbeat_seconds "
            f"({heartbeat_seconds:g} s), or one late heartbeat would count as a death"
        )


# The first byte tells a value, even an empty one, from a file that is still being filled, which may
# be seen on file systems without hard links (see `LocalStorage.create`).


def _encode(value: str) -> bytes:
    return b"=" + value.encode()


def _decode(data: bytes) -> str | None:
    return data[1:].decode() if data else None
