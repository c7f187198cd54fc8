"""The owner of a directory, and whether that process may still be running. Only reads.

The file of a term says which process took it. A process that ends normally notes its end there; a
killed process cannot. Whether a process is running can be found out only on its own host.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import psutil

from distckpt.core import layout
from distckpt.runtime import host
from distckpt.storage.retrying_reader import Reader

# A process that was started after its term was taken is another one with the same id. Its clock may
# differ by this much.
_SLACK = 5.0


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that has taken a term.

    Attributes:
      term: The number of the term.
      host: The host of the process; "" if the file does not say.
      pid: The process id.
      since: When the process took the term, in seconds since 1970.
      ended: When the process noted its end; None if it has not.
      nonce: A random text, because numbers of terms repeat after a directory was cleared.
      keeps: The `newest_by` of the previous owner, if this one does not change it: it only deletes,
        or is the same process. None if it may commit or roll back.
      is_command: Whether the process is a command that maintains the directory, not a job.
    """

    term: int
    host: str = ""
    pid: int = 0
    since: float = 0.0
    ended: float | None = None
    nonce: str = ""
    keeps: str | None = None
    is_command: bool = False

    def __str__(self) -> str:
        """Returns the owner as errors name it."""
        if not self.host:
            return f"another process (term {self.term})"
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.host} (pid {self.pid}, term {self.term}) at {since}"

    @property
    def may_run(self) -> bool:
        """Whether the process may still be running, as far as this host can know."""
        if self.ended is not None:
            return False
        return self.host != host.name() or _runs(self.pid, self.since)

    def may_still_save(self, term: int) -> bool:
        """Whether an attempt of `term` may still be in progress; this is the current owner."""
        return self.term <= term and self.may_run


def newest_by(owner: Owner | None) -> str:
    """Returns an id of the owner that decided which checkpoint is the newest; `owner` is current.

    While it is unchanged, what a restore found is still the newest: no other process has come that
    may have committed or rolled back. Usually it is a nonce; "" if nobody ever owned the directory.
    """
    if owner is None:
        return ""
    return owner.keeps if owner.keeps is not None else owner.nonce or f"term {owner.term}"


def me(term: int, keeps: str | None = None, *, is_command: bool = False) -> Owner:
    """Returns this process as the owner of `term`, from now on; the rest as in `Owner`."""
    return Owner(
        term,
        host.name(),
        host.pid(),
        host.now(),
        nonce=host.token(8),
        keeps=keeps,
        is_command=is_command,
    )


def render(owner: Owner) -> bytes:
    """Returns the content of the term's file."""
    who: dict[str, Any] = {
        "host": owner.host,
        "pid": owner.pid,
        "since": owner.since,
        "nonce": owner.nonce,
    }
    if owner.ended is not None:
        who["ended"] = owner.ended
    if owner.keeps is not None:
        who["keeps"] = owner.keeps
    if owner.is_command:
        who["command"] = True
    return json.dumps(who).encode() + b"\n"


def parse(term: int, data: bytes) -> Owner:
    """Returns the owner in the file of `term`; one without a host if the file is damaged."""
    try:
        who = json.loads(data)
        since, ended = float(who["since"]), who.get("ended")
        time.gmtime(since)
        ended = None if ended is None else float(ended)
        nonce, keeps = str(who.get("nonce", "")), who.get("keeps")
        keeps = None if keeps is None else str(keeps)
        is_command = who.get("command") is True
        return Owner(
            term, str(who["host"]), int(who["pid"]), since, ended, nonce, keeps, is_command
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        OSError,
    ):
        return Owner(term)


def taken(storage: Reader, directory: str) -> list[int]:
    """Returns the terms that have been taken. Raises OSError if they cannot be read."""
    names = storage.list(layout.terms_folder(directory))
    return [e for e in map(layout.parse_term_name, names) if e is not None]


def find(storage: Reader, directory: str, *, below: int | None = None) -> Owner | None:
    """Returns the owner of a directory; None if nobody has ever saved there.

    Args:
      storage: The directory's storage.
      directory: The directory's path.
      below: If given, only lower terms count, so the result is the owner before that term.

    Raises:
      OSError: The directory cannot be read.
    """
    for term in sorted(taken(storage, directory), reverse=True):
        if below is not None and term >= below:
            continue
        path = layout.join(layout.terms_folder(directory), layout.term_name(term))
        try:
            return parse(term, storage.read(path))
        except FileNotFoundError:
            continue  # it was just deleted, or the listing is old
        except (PermissionError, IsADirectoryError):
            return Owner(term)  # in any case not this process
    return None


def _runs(pid: int, since: float) -> bool:
    try:
        process = psutil.Process(pid)
        # A zombie has ended; only its parent has not asked for its exit code yet.
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return not is_zombie and bool(process.create_time() <= since + _SLACK)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, ValueError, OverflowError):
        return True
