"""Makes a failing run simple: fewer choices, tamer ones, as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


def shrink(
    choices: Sequence[int], fails: Callable[[Sequence[int]], bool], *, tries: int = 1500
) -> list[int]:
    """Returns a sequence that fails, too, and is no longer.

    Args:
      choices: One that fails.
      fails: Whether another one does.
      tries: How often to ask.
    """
    best = _without_tail(choices)
    left = tries
    progress = True
    while progress and left > 0:
        progress = False
        for candidate in _simpler(best):
            if left <= 0:
                break
            left -= 1
            candidate = _without_tail(candidate)
            if _key(candidate) < _key(best) and fails(candidate):
                best, progress = candidate, True
                break
    return best


def _simpler(choices: list[int]) -> Iterator[list[int]]:
    """Yields simpler sequences, the boldest first."""
    size = len(choices)
    while size >= 1:
        for start in range(0, len(choices), size):
            yield choices[:start] + choices[start + size :]
            yield (
                choices[:start] + [0] * len(choices[start : start + size]) + choices[start + size :]
            )
        size //= 2
    for place, choice in enumerate(choices):
        for smaller in {choice // 2, choice - 1} if choice else ():
            yield [*choices[:place], smaller, *choices[place + 1 :]]


def _without_tail(choices: Sequence[int]) -> list[int]:
    """Zeros at the end say nothing: they are what is chosen without being asked."""
    kept = list(choices)
    while kept and kept[-1] == 0:
        kept.pop()
    return kept


def _key(choices: Sequence[int]) -> tuple[int, int]:
    return len(choices), sum(choices)
