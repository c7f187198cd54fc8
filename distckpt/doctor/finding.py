"""A result of ``distckpt doctor``."""

from __future__ import annotations

import dataclasses

from distckpt.doctor import clock_skew


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
      check: The name of the check.
      good: Whether a job can save there, according to this check.
      text: What was found, and what to do about a problem.
      doubtful: Whether there is a problem, even if `good`.
    """

    check: str
    good: bool
    text: str
    doubtful: bool = False


def of_clocks(check: str, ahead: float, found: str) -> Finding:
    """Returns the finding for clocks `ahead` seconds apart: good, doubtful, or not usable."""
    if abs(ahead) <= clock_skew.DOUBTFUL:
        return Finding(check, True, found)
    harm = (
        "Leases, `keep` policies and ages in lists depend on the clocks. Set them by NTP or chrony"
    )
    return Finding(check, abs(ahead) <= clock_skew.UNUSABLE, f"{found}. {harm}.", doubtful=True)
