"""Bugs that are put into distckpt on purpose: they check the simulation's own checks.

Each is a change of the real code, of the kind that people make by mistake. Several are real
mistakes that the simulation has found.
"""

from . import calls, commit, deleting, ownership, protocol, reading
from .registry import BUGS, FOCUS, fits, with_bug

__all__ = ["BUGS", "FOCUS", "calls", "commit", "deleting", "fits", "ownership", "protocol"]
__all__ += ["reading", "with_bug"]
