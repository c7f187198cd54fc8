"""Lets processes that share only a directory find each other in it and exchange values.

    <folder>/
      <token>.guest     one process: its token, host and pid, the tokens it has seen, its values

Each process has one file, which it writes again whenever it has seen, or publishes, something new.
A killed process leaves its file. Its age proves nothing, as clocks may differ. So a file counts
only if it lists the reader's own token as seen: that token is new and random, so only a live
process can know it. For the same reason only `distckpt gc` ever removes another process's file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import google_crc32c

from distckpt.core import layout
from distckpt.errors import ConfigurationError, DeadlineExceededError
from distckpt.runtime import host
from distckpt.storage.base import Storage

_SUFFIX = ".guest"
_LAST_WORD = "goodbye"
_MALFORMED = (RecursionError, OverflowError)  # what JSON may raise besides ValueError


@dataclasses.dataclass(frozen=True)
class Guest:
    """A process, as its file shows it.

    Attributes:
      token: Tells it from all others.
      host: Its host.
      pid: Its process id.
      seen: The tokens it has seen, its own included.
      said: The values it has published: subject → value.
    """

    token: str
    host: str
    pid: int
    seen: frozenset[str]
    said: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid})"


class FileRendezvous:
    """One process's part in a rendezvous.

    Args:
      storage: Where the folder is.
      folder: Its absolute path or URL; it is made, and the last guest removes it.
      size: The number of processes.
      patience: Seconds to wait for them, and then for each of their values.

    Attributes:
      me: This process's token.
      group: The tokens of all processes, sorted; empty before `join`.
    """

    def __init__(self, storage: Storage, folder: str, size: int, patience: float) -> None:
        self._storage = storage
        self._folder = folder
        self._size = size
        self._patience = patience
        self._pause = 0.05 + 0.005 * size  # every process reads every file
        self._seen: set[str] = set()
        self._said: dict[str, Any] = {}
        self._guests: dict[str, Guest] = {}
        self.me = host.token(8)
        self.group: tuple[str, ...] = ()

    def join(self) -> list[Guest]:
        """Waits until all have come, and returns them.

        Raises:
          DeadlineExceededError: A process has not come; the text says which have.
          ConfigurationError: Too many have come.
          OSError: The folder cannot be read or written.
        """
        self._seen.add(self.me)
        self._write()
        deadline = host.monotonic() + self._patience
        while len(here := self._here()) < self._size:
            if host.monotonic() >= deadline:
                raise DeadlineExceededError(self._missing(here))
            host.sleep(self._pause)
            self._look()
        if len(here) > self._size:
            raise ConfigurationError(self._crowded(here))
        self.group = tuple(sorted(guest.token for guest in here))
        groups = self.ask("group", list(self.group))
        if any(tuple(group) != self.group for group in groups.values()):
            raise ConfigurationError(self._crowded(here))
        return sorted(here, key=lambda guest: guest.token)

    def ask(self, subject: str, value: Any) -> dict[str, Any]:
        """Publishes `value` for `subject`, and returns the values of all: token → value.

        Raises:
          DeadlineExceededError: A process has published nothing; the text names it.
          OSError: The folder cannot be read or written.
        """
        self._said[subject] = value
        self._write()
        deadline = host.monotonic() + self._patience
        while silent := self._silent(subject):
            if host.monotonic() >= deadline:
                names = ", ".join(str(self._guests[token]) for token in silent)
                raise DeadlineExceededError(
                    f"no answer from {names} within {self._patience:g} s. Has it been "
                    "killed, or does it see changes too late?"
                )
            host.sleep(self._pause)
            self._look()
        return {token: self._guests[token].said.get(subject) for token in self.group}

    def say_goodbye(self) -> None:
        """Waits until no process needs the others any more. Then call `leave`."""
        self.ask(_LAST_WORD, True)

    def leave(self) -> None:
        """Removes this process's file, and the folder if it was the last one.

        A process that comes at this moment may lose its new file; it writes the file again.

        Raises:
          OSError: Something cannot be removed.
        """
        self._storage.remove(self._path(self.me))
        if not self._storage.list(self._folder) and self._storage.exists(self._folder):
            self._storage.remove_tree(self._folder)

    # --- Reading and writing files

    def _here(self) -> list[Guest]:
        """Returns the guests that have seen this process."""
        return [guest for guest in self._guests.values() if self.me in guest.seen]

    def _silent(self, subject: str) -> list[str]:
        """Returns the group's silent members. Those that have left had seen all last values."""
        silent = [t for t in self.group if subject not in self._guests[t].said]
        if subject == _LAST_WORD:
            return [t for t in silent if self._storage.exists(self._path(t))]
        return silent

    def _look(self) -> None:
        """Reads the other processes' files, and makes sure that they can read this one's."""
        self._storage.make_directory(self._folder)
        self._storage.freshen(self._folder)
        names = [n for n in self._storage.list(self._folder) if n.endswith(_SUFFIX)]
        for token in (name.removesuffix(_SUFFIX) for name in names):
            if self._is_of_interest(token) and (guest := self._read(token)) is not None:
                self._guests[token] = guest
        # A process that comes after the group is complete gets no answer: an answer would mislead.
        new = set() if self.group else self._guests.keys() - self._seen
        if new or f"{self.me}{_SUFFIX}" not in names:
            self._seen |= new
            self._write()

    def _is_of_interest(self, token: str) -> bool:
        return token in self.group if self.group else True

    def _read(self, token: str) -> Guest | None:
        """Returns the guest of a file; None if it was just removed, or cannot be parsed."""
        try:
            text, _, checksum = self._storage.read(self._path(token)).partition(b"\n")
            if int(checksum, 16) != google_crc32c.value(text):
                return None
            body = json.loads(text)
            seen = frozenset(body["seen"])
            return Guest(token, str(body["host"]), int(body["pid"]), seen, dict(body["said"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError, *_MALFORMED):
            return None

    def _write(self) -> None:
        said = {"host": host.name(), "pid": host.pid(), "seen": sorted(self._seen)}
        text = json.dumps({**said, "said": self._said}).encode()
        self._storage.make_directory(self._folder)
        content = text + b"\n%08x" % google_crc32c.value(text)
        self._storage.write(self._path(self.me), content, durable=False)
        guest = self._read(self.me)
        if guest is not None:
            self._guests[self.me] = guest

    def _path(self, token: str) -> str:
        return layout.join(self._folder, token + _SUFFIX)

    # --- Error messages

    def _missing(self, here: list[Guest]) -> str:
        silent = [str(guest) for guest in self._guests.values() if guest not in here]
        text = (
            f"{len(here)} of {self._size} have come within {self._patience:g} s: {_names(here)}; "
            f"{self._size - len(here)} missing. Have all been started, with the same --workers? "
            "Is the directory shared by all, and not a local folder of each host?"
        )
        if silent:
            text += (
                f" {', '.join(silent)} left a file, but does not answer: killed earlier (`distckpt "
                "gc` removes the file), or it does not see the files written here."
            )
        return text

    def _crowded(self, here: list[Guest]) -> str:
        return (
            f"more than {self._size} have come, among them {_names(here)}. Give --workers the "
            "number of started processes, and do not run two checks at the same time."
        )


def _names(guests: list[Guest]) -> str:
    return ", ".join(sorted(map(str, guests)))
