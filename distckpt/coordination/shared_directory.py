"""Coordination through files in a directory that all workers see; no TensorFlow cluster is needed.

    <directory>/<run id>/
      key.<key>          one published value; "/" in the key is written "="
      worker-00001       worker 1's heartbeat: its identity; touched at intervals while it lives

A file of a key is created once, complete, and never changed, so an existing file has the value. The
run id is part of every path, so a restarted job never meets files of its predecessor. Clocks of
different hosts are never compared: a worker counts as dead when its heartbeat file has not
*changed* for a while, by the watcher's own clock. On network file systems that cache directories,
the cache may delay a key (for NFS, see ``acdirmin`` in nfs(5)).
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from distckpt import errors
from distckpt.coordination import base
from distckpt.runtime import host, portable, uncopyable
from distckpt.storage import obstacles
from distckpt.storage.local import LocalStorage

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05
_logger = logging.getLogger(__name__)


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
            self._pulse = _Pulse(self._directory, index, count, heartbeat_seconds, lost_after)
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
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while True:
            with self._engine():
                for key in keys:
                    if (value := self._look(key)) is not None:
                        return key, value
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            time.sleep(min(pause, remaining))
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    def lost(self) -> dict[int, str]:
        """See base. Answers at once, with the state at the last heartbeat."""
        return self._pulse.lost()

    def has_joined(self, index: int) -> bool:
        """See base: whether its heartbeat file has ever existed."""
        return self._pulse.has_shown_up(index)

    def forget(self, keys: Sequence[str]) -> None:
        """See base."""
        for key in keys:
            with contextlib.suppress(OSError):
                self._storage.remove(self._path(key))

    def close(self) -> None:
        """Stops the heartbeat and tells the other workers that this worker has left."""
        self._pulse.stop()

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


class _Pulse:
    """Shows the other workers that this worker lives, and finds out which of them live.

    A thread does both in turn. If the thread is delayed, because the process is stopped or the file
    system hangs, it also stops counting the other workers' silence: their heartbeats may hang, too.
    """

    def __init__(
        self, directory: str, index: int, count: int, interval: float, lost_after: float
    ) -> None:
        self._paths = [os.path.join(directory, f"worker-{n:05d}") for n in range(count)]
        self._index = index
        self._interval = interval
        self._lost_after = lost_after
        self._storage = LocalStorage()
        self._others = {n: _Other() for n in range(count) if n != index}
        self._lost: dict[int, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distckpt-heartbeat", daemon=True)
        self._thread.start()
        try:
            self._join()  # only with a thread: else it would look like a death later
        except (OSError, errors.ConfigurationError):
            self._stopping.set()
            raise

    def lost(self) -> dict[int, str]:
        """Returns the dead workers with the reasons."""
        return dict(self._lost)

    def has_shown_up(self, index: int) -> bool:
        """Returns whether a worker has ever had a heartbeat."""
        return index == self._index or self._others[index].has_shown_up

    def stop(self) -> None:
        """Ends the thread and notes that this worker has left. May be called repeatedly."""
        if not self._stopping.is_set():
            self.fall_silent()
            with contextlib.suppress(OSError):
                self._show("left")

    def fall_silent(self) -> None:
        """Ends the thread without a note, as the death of the process would."""
        self._stopping.set()
        self._thread.join(timeout=self._lost_after)  # a hung file system may block it

    def _run(self) -> None:
        seen = time.monotonic()
        while not self._stopping.wait(self._interval):
            try:
                self._beat()
            except OSError as error:
                _logger.warning("no heartbeat could be written: %s", error)
                continue
            now = time.monotonic()
            elapsed, seen = min(now - seen, 2 * self._interval), now
            self._lost = self._judge(elapsed)

    def _beat(self) -> None:
        try:
            os.utime(self._paths[self._index])  # needs no space, so it works on a full disk, too
        except FileNotFoundError:
            self._show("alive")

    def _join(self) -> None:
        """Creates the heartbeat file, which shows if another process was this worker before."""
        path = self._paths[self._index]
        try:
            self._storage.create(path, _identity("alive"), durable=False)
        except FileExistsError:
            raise errors.ConfigurationError(
                f"{path} exists: worker {self._index} has already joined this run"
                f"{_who_joined(self._storage, path)}. Give each start of the job, restarts "
                "included, a `run_id` of its own: the keys of an earlier start would be taken for "
                "messages of this one."
            ) from None

    def _show(self, state: str) -> None:
        self._storage.write(self._paths[self._index], _identity(state), durable=False)

    def _judge(self, elapsed: float) -> dict[int, str]:
        lost = {}
        for index, other in self._others.items():
            other.look(self._paths[index], elapsed)
            reason = other.verdict(self._lost_after)
            if reason is not None:
                lost[index] = reason
        return lost


class _Other:
    """What is known of another worker's heartbeat."""

    def __init__(self) -> None:
        self._mark: tuple[int, int] | None = None
        self._who: dict[str, object] = {}
        self._silence = 0.0

    def look(self, path: str, elapsed: float) -> None:
        """Looks at the heartbeat file, after `elapsed` seconds of undisturbed watching."""
        self._silence += elapsed
        # Opening the file, not only stat(), makes NFS look at the server's copy.
        with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
            status = os.fstat(file.fileno())
            mark = (status.st_ino, status.st_mtime_ns)
            if mark != self._mark:
                self._who = json.loads(file.read())
                self._mark = mark
                self._silence = 0.0

    @property
    def has_shown_up(self) -> bool:
        """Whether there has ever been a heartbeat."""
        return self._mark is not None

    def verdict(self, lost_after: float) -> str | None:
        """Returns why the worker is lost, or None if it lives or has not come yet."""
        who = f"on host {self._who.get('host')}, pid {self._who.get('pid')}"
        if self._who.get("state") == "left":
            return f"it has left the job, {who}"
        if self._mark is not None and self._silence >= lost_after:
            return f"no heartbeat for {lost_after:g} s, {who}"
        return None


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


def _identity(state: str) -> bytes:
    who = {"state": state, "host": socket.gethostname(), "pid": os.getpid()}
    return json.dumps(who).encode()


def _who_joined(storage: LocalStorage, path: str) -> str:
    try:
        who = json.loads(storage.read(path))
        return f" (host {who['host']}, pid {who['pid']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


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
