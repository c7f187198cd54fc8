"""Heartbeats in a directory that all workers share, and what they say of the workers.

Worker 1's heartbeat is the file ``worker-00001``: its identity, touched at intervals while it
lives. Clocks of different hosts are never compared: a worker counts as dead when its file has not
*changed* for a while, by the watcher's own clock.

Only the chief watches all files. Its own file also lists the workers that it has found dead, and
the other workers watch only that file: so N workers make 3 N file operations in each interval, and
not N².
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time

from distckpt import errors
from distckpt.storage.local import LocalStorage

_CHIEF = 0
_logger = logging.getLogger(__name__)


class Heartbeats:
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
        watched = range(count) if index == _CHIEF else (_CHIEF,)
        self._others = {n: _Other() for n in watched if n != index}
        self._lost: dict[int, str] = {}
        self._told: dict[int, str] = {}  # by the chief to the others
        self._stopping = threading.Event()
        self._joined = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distckpt-heartbeat", daemon=True)
        self._thread.start()
        try:
            self._join()  # only with a thread: else it would look like a death later
        except (OSError, errors.ConfigurationError):
            self._stopping.set()
            raise
        finally:
            self._joined.set()

    def lost(self) -> dict[int, str]:
        """Returns the dead workers with the reasons."""
        return dict(self._lost)

    def has_shown_up(self, index: int) -> bool:
        """Returns whether a worker has ever had a heartbeat."""
        if index in self._others:
            return self._others[index].has_shown_up
        return index == self._index or os.path.exists(self._paths[index])

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
        self._joined.wait()  # else its first heartbeat could look like another process
        seen = time.monotonic()
        while not self._stopping.wait(self._interval):
            try:
                self._beat()
                self._tell()
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

    def _tell(self) -> None:
        """Tells the other workers which of them are lost, if this is the chief."""
        if self._index == _CHIEF and self._told != self._lost:
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
        lost = dict(self._lost) if self._index == _CHIEF else {}
        self._storage.write(self._paths[self._index], _identity(state, lost), durable=False)
        self._told = lost

    def _judge(self, elapsed: float) -> dict[int, str]:
        lost = {}
        for index, other in self._others.items():
            other.look(self._paths[index], elapsed)
            reason = other.verdict(self._lost_after)
            if reason is not None:
                lost[index] = reason
        if self._index != _CHIEF:
            lost = {**self._others[_CHIEF].told(), **lost}
            lost.pop(self._index, None)  # this worker was only held up
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

    def told(self) -> dict[int, str]:
        """Returns the workers that are lost according to this one, with the reasons."""
        lost = self._who.get("lost")
        return {int(n): str(why) for n, why in lost.items()} if isinstance(lost, dict) else {}

    def verdict(self, lost_after: float) -> str | None:
        """Returns why the worker is lost, or None if it lives or has not come yet."""
        who = f"on host {self._who.get('host')}, pid {self._who.get('pid')}"
        if self._who.get("state") == "left":
            return f"it has left the job, {who}"
        if self._mark is not None and self._silence >= lost_after:
            return f"no heartbeat for {lost_after:g} s, {who}"
        return None


def _identity(state: str, lost: dict[int, str] | None = None) -> bytes:
    who = {"state": state, "host": socket.gethostname(), "pid": os.getpid()}
    return json.dumps({**who, "lost": lost} if lost else who).encode()


def _who_joined(storage: LocalStorage, path: str) -> str:
    try:
        who = json.loads(storage.read(path))
        return f" (host {who['host']}, pid {who['pid']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""
