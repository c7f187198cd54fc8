"""Reads pins and leases, which protect checkpoints from deletion. Any process; never writes.

A pin wins against a deletion in progress (`AttemptCleanup`): the deleting process first moves index
and manifest away and then looks for pins; the pinning process first writes the pin and then looks
for the checkpoint. One of the two must see the other. So the deletion is undone, or the pin is
refused because it came too late.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from distckpt.core import layout, pins_and_leases
from distckpt.core.pins_and_leases import Lease, Pin
from distckpt.runtime import host
from distckpt.storage.base import Storage


class Holds:
    """The pins and leases of one directory.

    Args:
      storage: Where the directory is.
      directory: Its path.
    """

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._folder = layout.holds_folder(directory)

    def all(self) -> list[Pin | Lease]:
        """Returns all pins and leases, expired leases included.

        Raises:
          OSError: They cannot be read.
        """
        return self._read(self._storage.list(self._folder))

    def held(self) -> dict[str, str]:
        """Returns the checkpoints that must not be deleted now: name → reason.

        Raises:
          OSError: The pins and leases cannot be read.
        """
        return _by_name(self.all(), host.now())

    def why(self, name: str) -> str | None:
        """Returns why `name` must not be deleted, up to the latest pin; None if it may be.

        Raises:
          OSError: The pins and leases cannot be read.
        """
        if self._storage.exists(self._folder):
            self._storage.freshen(self._folder)
        names = [file for file in self._storage.list(self._folder) if _is_about(file, name)]
        return _by_name(self._read(names), host.now()).get(name)

    def _read(self, files: Iterable[str]) -> list[Pin | Lease]:
        found = []
        for file in files:
            if layout.parse_hold_name(file) is None:
                continue
            with contextlib.suppress(FileNotFoundError):  # it has just been removed
                found.append(pins_and_leases.parse(file, self._content(file)))
        return [hold for hold in found if hold is not None]

    def _content(self, file: str) -> bytes:
        try:
            return self._storage.read(layout.join(self._folder, file))
        except IsADirectoryError:
            return b""


def _is_about(file: str, name: str) -> bool:
    said = layout.parse_hold_name(file)
    return said is not None and said[0] == name


def _by_name(found: Iterable[Pin | Lease], now: float) -> dict[str, str]:
    held: dict[str, str] = {}
    for hold in found:
        if isinstance(hold, Pin):
            held[hold.name] = "pinned" + (f" ({hold.reason})" if hold.reason else "")
        elif hold.holds(now):
            held.setdefault(hold.name, f"being read on {hold.host} (pid {hold.pid})")
    return held
