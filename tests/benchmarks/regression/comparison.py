"""Compares the two commits: ratios within a round, counts, and what is a regression."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import report

# Times and process numbers in a manifest are not always equally long.
_BYTES_FACTOR = 1.001


class Sample(NamedTuple):
    """One measurement of one commit.

    Attributes:
      cpu: Seconds of the processor.
      counts: What was counted, by name.
    """

    cpu: float
    counts: dict[str, int]


class Round(NamedTuple):
    """One round.

    Attributes:
      samples: Those of A and of B, by the measurement's name.
      others: How many cores other processes took meanwhile.
    """

    samples: dict[str, tuple[Sample, Sample]]
    others: float


class Count(NamedTuple):
    """The least and the most of one count, for A and for B."""

    name: str
    a: tuple[int, int]
    b: tuple[int, int]

    @property
    def grown(self) -> bool:
        """Whether B had more in every round than A in any."""
        return self.b[0] > self.a[1] * self._factor

    @property
    def differs(self) -> bool:
        """Whether B's range is not within A's."""
        least, most = self.a[0] / self._factor, self.a[1] * self._factor
        return not least <= self.b[0] <= self.b[1] <= most

    @property
    def _factor(self) -> float:
        """The factor up to which two numbers count as equal."""
        return _BYTES_FACTOR if self.name == "bytes" else 1.0

    def __str__(self) -> str:
        return f"{self.name} {_range(self.a)} → {_range(self.b)}"


class Row(NamedTuple):
    """A measurement.

    Attributes:
      name: Its name.
      a: The median of A's processor times, in seconds.
      b: The same of B's.
      ratios: B's time divided by A's, one per round, sorted.
      counts: What was counted differently.
    """

    name: str
    a: float
    b: float
    ratios: list[float]
    counts: list[Count]

    def slower(self, allow: float) -> bool:
        """Returns whether B takes more than the share `allow` more, and never less, than A."""
        return statistics.median(self.ratios) > 1 + allow and self.ratios[0] > 1

    def regressions(self, allow: float) -> list[str]:
        """Returns what has become worse."""
        found = [str(count) for count in self.counts if count.grown]
        if self.slower(allow):
            found.insert(0, f"processor time × {statistics.median(self.ratios):.2f}")
        return found


def rows(rounds: Sequence[Round], names: Sequence[str]) -> list[Row]:
    """Returns a row for each of `names`."""
    return [_row(name, [one.samples[name] for one in rounds]) for name in names]


def _row(name: str, pairs: list[tuple[Sample, Sample]]) -> Row:
    ratios = sorted(b.cpu / max(a.cpu, 1e-6) for a, b in pairs)
    a, b = (statistics.median(sample.cpu for sample in side) for side in zip(*pairs, strict=True))
    kinds = sorted({kind for pair in pairs for sample in pair for kind in sample.counts})
    counts = [_count(kind, pairs) for kind in kinds]
    return Row(name, a, b, ratios, [count for count in counts if count.differs])


def _count(kind: str, pairs: list[tuple[Sample, Sample]]) -> Count:
    a, b = ([sample.counts.get(kind, 0) for sample in side] for side in zip(*pairs, strict=True))
    return Count(kind, (min(a), max(a)), (min(b), max(b)))


def table(found: Sequence[Row], allow: float) -> str:
    """Returns the measurements as text."""
    lines = [f"{'processor time':44}{'A':>9}{'B':>12}   B ÷ A; counts: A → B"]
    for row in found:
        mark = "  SLOWER" if row.slower(allow) else ""
        ratio = report.spread(row.ratios, 2)
        lines.append(f"{row.name:44}{_ms(row.a)}{_ms(row.b)}   {ratio}{mark}")
        lines += [f"    {count}{'  GROWN' if count.grown else ''}" for count in row.counts]
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:9.1f} ms"


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,}–{ends[1]:,}"
