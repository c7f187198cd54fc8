"""What ``distckpt doctor`` has found out."""

from __future__ import annotations

import dataclasses

from distckpt.core import clocks


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came of one check.

    Attributes:
      check: What was looked at.
      good: Whether a job can save there, as far as this goes.
      text: What was found, and if it is not as it should be, what to do.
      doubtful: Whether it is not as it should be, all the same.
    """

    check: str
    good: bool
    text: str
    doubtful: bool = False


def of_clocks(check: str, ahead: float, found: str) -> Finding:
    """Returns what clocks that are `ahead` seconds apart are: good, doubtful, or not usable."""
    if abs(ahead) <= clocks.DOUBTFUL:
        return Finding(check, True, found)
    harm = (
        "Leases, `keep` policies and the ages in lists go by the clocks. Let NTP or chrony set them"
    )
    return Finding(check, abs(ahead) <= clocks.UNUSABLE, f"{found}. {harm}.", doubtful=True)
