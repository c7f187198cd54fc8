"""Many simulated workers: what scale.py measures, with its table and its plot."""

from __future__ import annotations

from typing import Any

import scale
from summary import Figure, Finding

from perf.lab import Lab
from perf.plots import Bar, Panel, chart

_QUICK = ([8, 16, 64], [50, 100, 200])
_PLOTTED = {"plan": "Planning", "commit": "The chief's work for one commit"}


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Measures more and more workers, then more and more entries."""
    workers, entries = _QUICK if lab.options.quick else (scale.WORKERS, scale.ENTRIES)
    at = min(scale.AT_WORKERS, workers[-1])
    lab.say(f"scale: up to {workers[-1]:,} workers and {entries[-1]:,} entries …")
    rounds = lab.options.rounds
    found = scale.measure(workers, entries[-1], rounds)
    for count in entries[:-1]:
        found += scale.measure([at], count, rounds)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the Markdown of what `measure` returned, and what was expected of it."""
    by_workers, by_entries = _sorted(rows)
    return scale.table(rows) + "\n\n" + scale.findings(by_workers, by_entries)


def findings(rows: list[dict[str, Any]]) -> list[Finding]:
    """Returns what was expected of the most workers, and of the growth with their number."""
    by_workers, by_entries = _sorted(rows)
    last = by_workers[-1]
    title = f"{last['workers']:,} workers, {last['entries']:,} entries"
    found = [
        Finding(f"{title}: {column}", Figure.of([last[column]]), ("≤", float(most)), f" {unit}")
        for column, most, unit in scale.EXPECTED
    ]
    for over, some in (("workers", by_workers), ("entries", by_entries)):
        for column in ("plan", "commit", "manifest"):
            power = Figure.of([scale.growth(some, over, column)])
            found.append(Finding(f"power by which {column} grows with {over}", power, ("≤", 1.1)))
    return found


def picture(rows: list[dict[str, Any]]) -> str:
    """Returns the SVG of the seconds over the number of workers."""
    by_workers, _ = _sorted(rows)
    panels = []
    for column, title in _PLOTTED.items():
        bars = [_bar(row["workers"], row[column]) for row in by_workers]
        panels.append(Panel(f"{title}, {by_workers[0]['entries']:,} entries", bars))
    title = "Processor time over the number of workers, twice as many in each row"
    return chart(title, panels, lambda s: f"{1000 * s:.0f} ms", logarithmic=False)


def _bar(workers: int, seconds: float) -> Bar:
    return Bar(f"{workers:,} workers", seconds, seconds, seconds, ours=True)


def _sorted(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of all numbers of workers, and those of all numbers of entries."""
    most = max(row["entries"] for row in rows)
    at = next((row["workers"] for row in rows if row["entries"] != most), rows[-1]["workers"])
    by_entries = sorted((r for r in rows if r["workers"] == at), key=lambda r: r["entries"])
    return [row for row in rows if row["entries"] == most], by_entries
