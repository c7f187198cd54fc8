"""From measurements to figures: medians, ratios within a round, and what was expected of them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable
from typing import Any

WAYS = ("distckpt", "durable", "recipe", "floor")

# In the order in which they happen; others would come last.
_ACTIONS = (
    *("capture and plan", "SendReady", "AwaitReady", "AnnounceRendezvous", "ReadTogether"),
    *("Open", "AnnounceOpening", "AwaitOpening", "Write", "SendAnswer", "AwaitAnswer"),
    *("Merge", "Commit", "Prune", "Tell", "AwaitOutcome", "Finish", "between"),
)


@dataclasses.dataclass
class Sample:
    """One save by all workers.

    Attributes:
      seconds: From the first worker's beginning to the last one's end.
      seconds_cleaned: The same with the clean-up that the way needs.
      sizes: Bytes in the files left before the clean-up, see `disk.sizes`.
      agreement: Seconds of the chief for agreement and commit; None if it is not distckpt.
      actions: For each worker, the seconds of each action.
      settled: Whether the disk was quiet before.
      late: Seconds between the first and the last worker's beginning.
    """

    seconds: float
    seconds_cleaned: float
    sizes: dict[str, int]
    agreement: float | None
    actions: list[dict[str, float]]
    settled: bool
    late: float


Round = dict[str, Sample]


@dataclasses.dataclass
class Run:
    """All rounds of one state on one number of workers; `state_bytes` are those of the tensors."""

    state: str
    workers: int
    state_bytes: int
    rounds: list[Round]

    def figures(self, way: str, of: Callable[[Sample], float]) -> Figure:
        """Returns a figure of the samples of `way`."""
        return Figure.of(of(r[way]) for r in self.rounds)

    def ratio(self, above: Callable[[Round], float], below: Callable[[Round], float]) -> Figure:
        """Returns the figure of a ratio, taken within each round."""
        return Figure.of(above(r) / below(r) for r in self.rounds)

    @property
    def plain_sizes(self) -> tuple[float, float]:
        """Bytes of data and index of a plain checkpoint: what each worker writes by the recipe."""
        sizes = self.rounds[0]["recipe"].sizes
        return sizes["data"] / self.workers, sizes["index"] / self.workers


@dataclasses.dataclass(frozen=True)
class Figure:
    """Median, least and greatest of some numbers."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Figure:
        """Returns the figure of at least one number."""
        found = list(numbers)
        return cls(statistics.median(found), min(found), max(found))


@dataclasses.dataclass(frozen=True)
class Finding:
    """A ratio or an amount, with what was expected of it: ("≥", 4.0), or None."""

    name: str
    figure: Figure
    expected: tuple[str, float] | None = None
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Returns "met", "not met", or "" when nothing was expected."""
        if self.expected is None:
            return ""
        sign, bound = self.expected
        good = self.figure.median >= bound if sign == "≥" else self.figure.median <= bound
        return "met" if good else "not met"

    def line(self) -> str:
        """Returns it as one line of text."""
        f = self.figure
        text = f"{self.name}: {f.median:.3g} ({f.least:.3g}–{f.most:.3g}){self.unit}"
        if self.expected is None:
            return text
        sign, bound = self.expected
        return f"{text}, expected {sign} {bound:g}{self.unit}: {self.verdict}"

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain data, with the verdict."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finding:
        """Returns what `to_json` returned, after a journey through JSON."""
        expected = data["expected"] and (str(data["expected"][0]), float(data["expected"][1]))
        return cls(data["name"], Figure(**data["figure"]), expected, data["unit"])


def findings(run: Run) -> list[Finding]:
    """Returns the ratios of a run, and what a median should be."""

    def seconds(way: str) -> Callable[[Round], float]:
        return lambda r: r[way].seconds

    def cleaned(r: Round) -> float:
        return r["recipe"].seconds_cleaned

    one, four = run.workers == 1, run.workers == 4
    many_times = ("≥", 4.0) if four else None
    as_fast = ("≤", 1.1) if one else None
    near_floor = ("≤", 2.0) if four and run.state == "big" else None
    plain, durable = seconds("distckpt"), seconds("durable")
    recipe, floor = seconds("recipe"), seconds("floor")
    return [
        Finding("recipe / distckpt", run.ratio(recipe, plain), many_times),
        Finding("recipe with clean-up / distckpt", run.ratio(cleaned, plain)),
        Finding("recipe / distckpt durable", run.ratio(recipe, durable)),
        Finding("distckpt / recipe", run.ratio(plain, recipe), as_fast),
        Finding("distckpt / floor", run.ratio(plain, floor), near_floor),
        Finding("distckpt durable / floor", run.ratio(durable, floor)),
        *_amounts(run),
    ]


def titled_findings(run: Run) -> list[Finding]:
    """Returns the findings of a run, with its state and its workers in their names."""
    title = f"{run.state} state, {run.workers} {'worker' if run.workers == 1 else 'workers'}"
    return [dataclasses.replace(f, name=f"{title}: {f.name}") for f in findings(run)]


def _amounts(run: Run) -> list[Finding]:
    """Returns what was written, in plain checkpoints, and the time that no worker writes."""
    data, index = run.plain_sizes
    written = run.figures("distckpt", lambda s: s.sizes["data"] / data)
    files = run.figures("distckpt", lambda s: sum(s.sizes.values()) / (data + index))
    found = [
        Finding("data bytes / plain checkpoint's", written, ("≤", 1.01)),
        Finding("bytes of all files / plain ckpt's", files, ("≤", 1.01)),
    ]
    for way, name in (("distckpt", "distckpt"), ("durable", "distckpt durable")):
        took = run.figures(way, lambda s: 1000 * (s.agreement or 0.0))
        found.append(Finding(f"agree, commit: {name}", took, ("≤", 50.0), " ms"))
    return found


def action_medians(run: Run, way: str) -> dict[str, tuple[float | None, float | None]]:
    """Returns for each action the chief's and the slowest other worker's seconds, as medians.

    None stands for what that side does not do.
    """
    samples = [r[way] for r in run.rounds]
    names = {name for s in samples for worker in s.actions for name in worker}
    return {
        name: (
            _slowest(name, [s.actions[:1] for s in samples]),
            _slowest(name, [s.actions[1:] for s in samples]),
        )
        for name in sorted(names, key=lambda n: _ACTIONS.index(n) if n in _ACTIONS else 99)
    }


def _slowest(name: str, saves: list[list[dict[str, float]]]) -> float | None:
    """Returns the median over the saves of the greatest among some workers."""
    found = [max((w[name] for w in workers if name in w), default=None) for workers in saves]
    known = [seconds for seconds in found if seconds is not None]
    return statistics.median(known) if known else None


def to_json(run: Run) -> dict[str, Any]:
    """Returns the run, its samples and its findings, as plain data."""
    return {
        **dataclasses.asdict(run),
        "plain_sizes": run.plain_sizes,
        "findings": [found.to_json() for found in findings(run)],
    }
