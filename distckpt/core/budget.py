"""Whether a save still fits into the time that a preempted job has left. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# A save may take longer than those before it: everybody is being preempted, the disk is busy.
FACTOR = 1.5
# For what comes before and after: the step that is agreed upon, leaving in good order.
MARGIN = 1.0


def fits(left: Iterable[float | None], expected: float | None) -> bool:
    """Returns whether all may begin to save.

    Args:
      left: For each worker the seconds that it has left; None if it has not been told to end.
      expected: How long a save takes, in seconds; None if nobody knows: then it is tried.
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
