"""How long a preempted worker has until it is killed: the grace period."""

from __future__ import annotations

import math
import os

from distckpt.errors import ConfigurationError

_VARIABLE = "DISTCKPT_GRACE_SECONDS"


def find(grace_seconds: float | None) -> float | None:
    """Returns the grace period in seconds; None if it is unknown.

    Args:
      grace_seconds: As given to `handle_preemption`. Default: ``DISTCKPT_GRACE_SECONDS``.

    Raises:
      ConfigurationError: It is not a positive number.
    """
    text = os.environ.get(_VARIABLE, "").strip()
    if grace_seconds is None and not text:
        return None
    name, value = (_VARIABLE, text) if grace_seconds is None else ("grace_seconds", grace_seconds)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 < seconds < math.inf:
        raise ConfigurationError(f"{name} must be a positive number of seconds, got {value!r}.")
    return seconds
