"""The phases of a save on one worker, for the manifest and for timelines."""

from __future__ import annotations

from typing import NamedTuple

HOLD = "hold"  # the values of the state are captured
WAIT = "wait"  # for other workers to come, or for the chief to open the save
READ = "read"  # values that need a collective are read
OPEN = "open"  # the chief makes the pending folder
COMPARE = "compare"  # checksums of the replicas, if requested
WRITE = "write"
FLUSH = "flush"  # to stable storage
GATHER = "gather"  # the chief waits for the others' reports
MERGE = "merge"  # the chief makes one checkpoint of the shards

# In the order of a save.
ALL = (HOLD, WAIT, READ, OPEN, COMPARE, WRITE, FLUSH, GATHER, MERGE)
# The phases of a worker's own work: if these take longer than elsewhere, it is a straggler.
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
        """When the next phase began."""
        return self.began + self.seconds
