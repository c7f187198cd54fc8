"""Attempts at a save: their ids, their pending folders, and the names of the files in these."""

from __future__ import annotations

import re
from typing import NamedTuple

_ATTEMPT = "[0-9]{8,18}-[0-9]{6,18}-[0-9a-z]+"
_ATTEMPT_ID = re.compile("([0-9]{8,18})-([0-9]{6,18})-([0-9a-z]+)")
_PENDING = re.compile(f"(.+)[.]pending-({_ATTEMPT})", re.DOTALL)


class Attempt(NamedTuple):
    """An attempt at a save: `sequence` counts those of one term, `token` is random."""

    term: int
    sequence: int
    token: str


def attempt_id(term: int, sequence: int, token: str) -> str:
    """Returns the id of an attempt, e.g. "00000007-000012-a1b2c3d4". Ids sort by age.

    Args:
      term: The chief's term; a later chief reads it from the id and so knows what is stale.
      sequence: Counts the attempts of the term.
      token: Lower-case letters and digits that no other attempt has.
    """
    return f"{term:08d}-{sequence:06d}-{token}"


def parse_attempt_id(text: str) -> Attempt | None:
    """Returns what an attempt's id says, or None if `text` is not one."""
    match = _ATTEMPT_ID.fullmatch(text)
    if not match:
        return None
    parsed = Attempt(int(match[1]), int(match[2]), match[3])
    return parsed if attempt_id(*parsed) == text else None


class Pending(NamedTuple):
    """A pending folder: its name, the name of the checkpoint to be, and the attempt."""

    folder: str
    checkpoint: str
    attempt: Attempt


def pending_name(name: str, attempt: str) -> str:
    """Returns the name of the folder in which the attempt with id `attempt` makes `name`."""
    return f"{name}.pending-{attempt}"


def parse_pending_name(folder: str) -> Pending | None:
    """Returns what the name of a pending folder says, or None if `folder` is not one."""
    match = _PENDING.fullmatch(folder)
    attempt = parse_attempt_id(match[2]) if match else None
    return Pending(folder, match[1], attempt) if match and attempt else None


def shard_stem(worker: int, workers: int) -> str:
    """Returns the prefix of every name that worker `worker` writes into a pending folder."""
    return f"shard-{worker:05d}-of-{workers:05d}"


def own_stem(worker: int, workers: int) -> str:
    """Returns the name, in a pending folder, of the checkpoint of worker `worker`'s own state."""
    return shard_stem(worker, workers) + ".own"
