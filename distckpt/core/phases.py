"""The phases of a save on one worker: what it did when, for the manifest and for pictures of it."""

from __future__ import annotations

from typing import NamedTuple

HOLD = "hold"  # the values of the state are taken hold of
WAIT = "wait"  # for others: to come, or for the chief to open the save
READ = "read"  # what takes a collective is read
OPEN = "open"  # the chief makes the pending folder
COMPARE = "compare"  # checksums of the replicas, if they are asked for
WRITE = "write"
FLUSH = "flush"  # to stable storage
GATHER = "gather"  # the chief waits for the others' reports
MERGE = "merge"  # the chief makes one checkpoint of the shards

# In the order of a save.
ALL = (HOLD, WAIT, READ, OPEN, COMPARE, WRITE, FLUSH, GATHER, MERGE)
# Those in which a worker does its own part: what takes longer than elsewhere makes a straggler.
OWN = (HOLD, READ, COMPARE, WRITE, FLUSH)


class Phase(NamedTuple):
    """A phase of a save on one worker.

    Attributes:
      name: One of `ALL`; a later version may have others.
      began: Seconds since 1970, by that worker's clock.
      seconds: How long it took.
    """

    name: str
    began: float
    seconds: float

    @property
    def ended(self) -> float:
        """When the next one began."""
        return self.began + self.seconds
