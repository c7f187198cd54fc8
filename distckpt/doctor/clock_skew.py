"""Bounds the skew of two clocks from the order of events.

A process reads its own clock, causes an event that the other clock times, and reads its own clock
again. Without skew, the other clock's time would lie between the two. That is Marzullo's interval,
as NTP uses it (RFC 5905).
"""

from __future__ import annotations

# Seconds. Some file systems keep whole seconds, so a smaller skew cannot be seen.
DOUBTFUL = 1.0
# A lease is written by the reader's clock and judged by the chief's. It is renewed when a quarter
# of it has passed, so at worst three quarters are left: a lease must last 80 s to survive clocks
# that are this far apart.
UNUSABLE = 60.0


def apart(before: float, other: float, after: float) -> float:
    """Returns by how many seconds the other clock is ahead of this one; negative: behind.

    It is the smallest skew that explains the observation, so at least that much is certain.

    Args:
      before: This clock before the event.
      other: The other clock at the event.
      after: This clock after the event.
    """
    if other > after:
        return other - after
    return min(0.0, other - before)


def describe(ahead: float) -> str:
    """Returns "3.2 s ahead of", "3.2 s behind" or "as"."""
    if abs(ahead) < 0.05:
        return "as"
    return f"{ahead:.1f} s ahead of" if ahead > 0 else f"{-ahead:.1f} s behind"
