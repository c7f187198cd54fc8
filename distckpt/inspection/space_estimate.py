"""Estimates the space that the checkpoints of a directory will take."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SpaceEstimate:
    """What is known of the sizes of checkpoints.

    Attributes:
      newest: Bytes of the newest checkpoint; 0 if there is none.
      kept: How many will be kept.
      there: Bytes of existing checkpoints that retention may delete.
      unlimited: Whether all are kept, so their number grows without limit.
    """

    newest: int
    kept: int
    there: int
    unlimited: bool = False

    @property
    def wanted(self) -> int:
        """Bytes that must be free for all kept checkpoints and one more, each of the newest's size.

        Existing checkpoints are subtracted, but one is always written before another is deleted.
        """
        return max(self.newest, (self.kept + 1) * self.newest - self.there)

    def more(self, free: int) -> int | None:
        """Returns how many checkpoints fit into `free` bytes; None if their size is unknown."""
        return free // self.newest if self.newest else None
