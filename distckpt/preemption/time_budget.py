"""Whether a save fits into the time that a preempted job has left. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# A save may take longer than previous ones: other jobs are preempted, too, and the disk is busy.
FACTOR = 1.5
# For the training step before the save, and for the orderly end after it.
MARGIN = 1.0


def fits(left: Iterable[float | None], expected: float | None) -> bool:
    """Returns whether all workers may begin to save.

    Args:
      left: For each worker, the seconds that it has left; None if it is not preempted.
      expected: How long a save takes, in seconds; None if unknown: then any time left is enough.
    """
    known = [seconds for seconds in left if seconds is not None]
    if not known:
        return True
    if min(known) <= 0:
        return False
    return expected is None or min(known) >= needed(expected)


def needed(expected: float) -> float:
    """Returns how many seconds must be left for a save that is expected to take `expected`."""
    return FACTOR * expected + MARGIN
