"""How far two clocks are apart, as far as that can be told from the order of what happened.

Somebody reads his own clock, something happens that the other clock times, and he reads his own
again. So the other clock's time lies between the two, but for what the clocks are apart. That is
Marzullo's interval, as NTP uses it (RFC 5905).
"""

from __future__ import annotations

# Seconds. Some file systems keep whole seconds, so less than one says nothing.
DOUBTFUL = 1.0
# A lease is written by the reader's clock and judged by the chief's. It is renewed when a quarter
# of it has passed, so at the worst three are left: one of 80 s survives clocks that are this far
# apart, and no shorter one.
UNUSABLE = 60.0


def apart(before: float, other: float, after: float) -> float:
    """Returns by how many seconds the other clock is ahead of one's own; negative: behind.

    It is the least number that explains what was seen, so what it says is certain.

    Args:
      before: One's own clock, before it happened.
      other: The other clock, when it happened.
      after: One's own clock, after it had.
    """
    if other > after:
        return other - after
    return min(0.0, other - before)


def describe(ahead: float) -> str:
    """Returns "3.2 s ahead of", "3.2 s behind" or "as"."""
    if abs(ahead) < 0.05:
        return "as"
    return f"{ahead:.1f} s ahead of" if ahead > 0 else f"{-ahead:.1f} s behind"
