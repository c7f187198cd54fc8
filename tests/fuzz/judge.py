"""Says whether a parser stood one input: nothing but errors of distckpt, memory in proportion."""

from __future__ import annotations

import dataclasses
import tracemalloc

from .targets import BASE, FACTOR, Target

# Memory is measured in one of so many inputs: that takes long.
MEASURED = 20


class Broken(AssertionError):
    """A parser did what it must not do."""


@dataclasses.dataclass
class Tally:
    """What became of the inputs of one target."""

    accepted: int = 0
    refused: int = 0
    most_memory: int = 0  # bytes, beyond FACTOR times the input

    @property
    def tried(self) -> int:
        """How many inputs there were; the memory of every so many of them is measured."""
        return self.accepted + self.refused


def judge(target: Target, data: bytes, tally: Tally) -> None:
    """Feeds `data` to the parser and counts what came of it.

    Raises:
      Broken: It raised what it must not raise, or took too much memory.
    """
    measured = tally.tried % MEASURED == 0
    if measured:
        tracemalloc.start()
    try:
        accepted = target.accepts(data)
        memory = tracemalloc.get_traced_memory()[1] if measured else 0
    except BaseException as error:
        tally.refused += 1
        raise Broken(f"{target.name}: {type(error).__name__}: {error}") from error
    finally:
        tracemalloc.stop()
    tally.accepted += accepted
    tally.refused += not accepted
    tally.most_memory = max(tally.most_memory, memory - FACTOR * len(data))
    if memory - FACTOR * len(data) > BASE:
        raise Broken(f"{target.name}: {memory} bytes for {len(data)} of input")
