"""All chance of a run, in one sequence of small numbers: from a seed, or given.

A run is repeated by giving its sequence again, and made simpler by giving a simpler one: 0 is
always the tamest choice, and what is asked for beyond the end of a given sequence is 0.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


class Choices:
    """A source of choices.

    Args:
      seed: Where the choices come from,
      given: or the choices themselves.

    Attributes:
      made: The choices so far.
    """

    def __init__(self, seed: int | str | None = None, given: Sequence[int] | None = None) -> None:
        self.made: list[int] = []
        self._random = random.Random(seed).random
        self._given = iter(given) if given is not None else None

    def below(self, count: int) -> int:
        """Returns a number from 0 to `count` - 1."""
        if self._given is None:
            choice = int(self._random() * count)
        else:
            choice = min(next(self._given, 0), count - 1)
        self.made.append(choice)
        return choice

    def of(self, *options):
        """Returns one of `options`, the tamest of which comes first."""
        return options[self.below(len(options))]
