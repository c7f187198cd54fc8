"""How much room the checkpoints of a directory will take."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Room:
    """What is known of the sizes of checkpoints.

    Attributes:
      newest: Bytes of the newest one; 0 if there is none.
      kept: How many are going to be kept.
      there: Bytes of those that are there now, and that retention may delete.
      unlimited: Whether all are kept, so that they become more and more.
    """

    newest: int
    kept: int
    there: int
    unlimited: bool = False

    @property
    def wanted(self) -> int:
        """Bytes that must be free: for those kept and the one being written, all as the newest.

        What is there is taken off, but one is always written before another is deleted.
        """
        return max(self.newest, (self.kept + 1) * self.newest - self.there)

    def more(self, free: int) -> int | None:
        """Returns how many checkpoints fit into `free` bytes; None if nobody knows their size."""
        return free // self.newest if self.newest else None
