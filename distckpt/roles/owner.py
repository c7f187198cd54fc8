"""Who owns a directory, and whether that process may still be running. Reads only.

The file of an epoch says which process took it; when that process ends in peace, it says so there,
too. One that was killed cannot: on its own host one can look for it, from elsewhere nobody knows.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import psutil

from distckpt.core import layout
from distckpt.roles import host
from distckpt.storage.base import Storage

# A process that was started later than its epoch was taken is another one, of the same number; its
# clock may be a little off.
_SLACK = 5.0


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that has taken an epoch.

    Attributes:
      epoch: Which.
      host: Where it runs; "" if the file does not say.
      pid: Its number there.
      since: When it took the epoch, in seconds since 1970.
      ended: When it said that it ended; None if it has not.
    """

    epoch: int
    host: str = ""
    pid: int = 0
    since: float = 0.0
    ended: float | None = None

    def __str__(self) -> str:
        """Returns it as errors name it."""
        if not self.host:
            return f"another process (epoch {self.epoch})"
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.host} (pid {self.pid}, epoch {self.epoch}) at {since}"

    @property
    def may_run(self) -> bool:
        """Whether it may still be running, for all that can be known here."""
        if self.ended is not None:
            return False
        return self.host != host.name() or _runs(self.pid, self.since)


def me(epoch: int, since: float, ended: float | None = None) -> Owner:
    """Returns this process as the owner of `epoch`."""
    return Owner(epoch, host.name(), host.pid(), since, ended)


def render(owner: Owner) -> bytes:
    """Returns the content of the epoch's file."""
    who: dict[str, Any] = {"host": owner.host, "pid": owner.pid, "since": owner.since}
    if owner.ended is not None:
        who["ended"] = owner.ended
    return json.dumps(who).encode() + b"\n"


def parse(epoch: int, data: bytes) -> Owner:
    """Returns what the file of `epoch` says; an owner without a name if it is damaged."""
    try:
        who = json.loads(data)
        since, ended = float(who["since"]), who.get("ended")
        time.gmtime(since)
        ended = None if ended is None else float(ended)
        return Owner(epoch, str(who["host"]), int(who["pid"]), since, ended)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        OSError,
    ):
        return Owner(epoch)


def taken(storage: Storage, directory: str) -> list[int]:
    """Returns the epochs that have been taken. Raises OSError if they cannot be read."""
    names = storage.list(layout.epochs_folder(directory))
    return [e for e in map(layout.parse_epoch_name, names) if e is not None]


def find(storage: Storage, directory: str) -> Owner | None:
    """Returns the owner of a directory; None if nobody has ever saved there.

    Raises:
      OSError: It cannot be told.
    """
    epoch = max(taken(storage, directory), default=None)
    return None if epoch is None else read(storage, directory, epoch)


def read(storage: Storage, directory: str, epoch: int) -> Owner:
    """Returns who has taken `epoch`, as far as it can be told."""
    try:
        path = layout.join(layout.epochs_folder(directory), layout.epoch_name(epoch))
        return parse(epoch, storage.read(path))
    except OSError:
        return Owner(epoch)


def _runs(pid: int, since: float) -> bool:
    try:
        return bool(psutil.Process(pid).create_time() <= since + _SLACK)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, ValueError, OverflowError):
        return True
