"""The files of pins and leases, which keep retention from deleting a checkpoint, as data.

    .distckpt/holds/ckpt-5.pin.json           kept until somebody removes the pin
    .distckpt/holds/ckpt-5.lease-<id>.json    kept as long as a reader renews it

A pin counts by its file's name alone, so a damaged pin still holds. A lease says when it was last
renewed and for how long it then holds; an unreadable lease does not hold.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from distckpt.core import layout
from distckpt.errors import ManifestError


@dataclasses.dataclass(frozen=True)
class Pin:
    """Keeps `name` until the pin is removed.

    Attributes:
      name: The checkpoint.
      by: Who set it: "user@host"; "" if the file is damaged.
      since: When it was set, in seconds since 1970.
      reason: The reason that this user gave.
    """

    name: str
    by: str = ""
    since: float = 0.0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Lease:
    """Keeps `name` while its holder lives.

    Attributes:
      name: The checkpoint.
      token: Tells it from other leases.
      host: The holder's host.
      pid: The holder's process.
      renewed_at: When it was last renewed, in seconds since 1970, by the holder's clock.
      seconds: How long it holds from then on.
    """

    name: str
    token: str
    host: str
    pid: int
    renewed_at: float
    seconds: float

    def holds(self, now: float) -> bool:
        """Returns whether it still holds at `now`; the two clocks may differ a little."""
        return abs(now - self.renewed_at) <= self.seconds


def render(hold: Pin | Lease) -> bytes:
    """Returns the content of a pin's or a lease's file."""
    return json.dumps(dataclasses.asdict(hold)).encode() + b"\n"


def parse(file: str, data: bytes) -> Pin | Lease | None:
    """Returns the pin or lease in a file of the `holds` folder; None if the file has neither.

    Args:
      file: The file's name.
      data: The file's content.
    """
    said = layout.parse_hold_name(file)
    if said is None:
        return None
    name, token = said
    try:
        body = json.loads(data)
        if body["name"] != name:
            raise ValueError("it is of another checkpoint")
        return _pin(name, body) if token is None else _lease(name, token, body)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, ManifestError):
        return Pin(name) if token is None else None


def _pin(name: str, body: dict[str, Any]) -> Pin:
    return Pin(name, str(body["by"]), _time(body["since"]), str(body["reason"]))


def _lease(name: str, token: str, body: dict[str, Any]) -> Lease:
    renewed, seconds = _time(body["renewed_at"]), _time(body["seconds"])
    return Lease(name, token, str(body["host"]), int(body["pid"]), renewed, seconds)


def _time(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a time")
    return number
