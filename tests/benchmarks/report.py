"""The report as text."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from disk import file_system
from summary import WAYS, Figure, Finding, Run, Sample, action_medians, findings

_NAMES = {
    "distckpt": "distckpt, not flushed",
    "durable": "distckpt, durable",
    "recipe": "recipe",
    "floor": "floor",
}


def machine(directory: Path) -> dict[str, str]:
    """Returns what the figures depend on, by name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.1f} GiB",
        "file system": file_system(directory),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "TensorFlow": metadata.version("tensorflow"),
        "load before": load,
    }


def describe_machine(facts: dict[str, str]) -> str:
    """Returns the facts in one paragraph."""
    return "; ".join(f"{name}: {fact}" for name, fact in facts.items())


def describe(run: Run) -> str:
    """Returns everything about one run."""
    rounds = len(run.rounds)
    title = (
        f"{run.state}, {run.workers} {_plural(run.workers, 'worker')}: {_bytes(run.state_bytes)}"
        f" of tensors, {_bytes(sum(run.plain_sizes))} as a plain checkpoint; "
        f"{rounds} {_plural(rounds, 'round')}"
    )
    parts = [title, "=" * len(title), *_seconds(run), "", *_ratios(run), "", *_actions(run)]
    return "\n".join([*parts, *_notes(run)])


def _seconds(run: Run) -> list[str]:
    lines = [f"{'':34}{'median':>10}{'min':>10}{'max':>10}  files written: data, index, other"]
    for way in WAYS:
        figure = run.figures(way, lambda s: s.seconds)
        sizes = ", ".join(_bytes(size) for size in run.rounds[0][way].sizes.values())
        lines.append(f"{_NAMES[way]:34}{_row(figure)}  {sizes}")
        if way == "recipe":
            cleaned = run.figures(way, lambda s: s.seconds_cleaned)
            lines.append(f"{'recipe with clean-up':34}{_row(cleaned)}")
    return lines


def _row(figure: Figure) -> str:
    return "".join(f"{n:8.3f} s" for n in (figure.median, figure.least, figure.most))


def _ratios(run: Run) -> list[str]:
    lines = []
    for f in findings(run):
        numbers = f"{f.figure.median:7.2f} ({f.figure.least:.2f}–{f.figure.most:.2f}){f.unit}"
        wanted = f"expected {f.expected[0]} {f.expected[1]:g}: " if f.expected else ""
        lines.append(f"{f.name:34}{numbers:32}{wanted}{f.verdict}".rstrip())
    return lines


def _actions(run: Run) -> list[str]:
    """Returns the table of what each action takes, in milliseconds."""
    plain, durable = action_medians(run, "distckpt"), action_medians(run, "durable")
    lines = [
        f"{'milliseconds (median)':34}{'not flushed':>24}{'durable':>24}",
        f"{'':34}" + 2 * f"{'chief':>12}{'others':>12}",
    ]
    for name in plain | durable:
        cells = [*plain.get(name, (None, None)), *durable.get(name, (None, None))]
        texts = ["" if c is None else f"{1000 * c:.1f}" for c in cells]
        lines.append(f"{name:34}" + "".join(f"{text:>12}" for text in texts))
    return lines


def _notes(run: Run) -> list[str]:
    samples: list[Sample] = [s for r in run.rounds for s in r.values()]
    notes = []
    if unsettled := sum(not s.settled for s in samples):
        notes.append(f"Note: before {unsettled} of {len(samples)} saves the disk was not quiet.")
    if (late := max(s.late for s in samples)) > 0.02:
        notes.append(f"Note: some worker began {1000 * late:.0f} ms after the first.")
    return ["", *notes] if notes else []


def spread(values: list[float], digits: int) -> str:
    """Returns the median of sorted values, and the least and the largest of them."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({values[0]:.{digits}f}-{values[-1]:.{digits}f})"


def write_findings(path: Path | None, found: Iterable[Finding], **more: Any) -> None:
    """Writes findings, and `more`, as JSON to the file of ``--json``, if one was given."""
    if path is not None:
        content = {"findings": [each.to_json() for each in found], **more}
        path.write_text(json.dumps(content, indent=1))


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def _bytes(number: float) -> str:
    return f"{number / 2**20:.2f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"


def complain(text: str) -> None:
    """Writes to standard error."""
    print(text, file=sys.stderr, flush=True)
