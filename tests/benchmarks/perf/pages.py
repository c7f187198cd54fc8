"""Writes the generated parts of a page, and its plots; or the same as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from perf import figures, restores, scaling, tables, ways
from perf.figures import Result, figure, seconds
from perf.plots import Bar, Panel, chart


def as_text(results: Result) -> str:
    """Returns all tables."""
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in blocks(results).items())


def blocks(results: Result) -> dict[str, str]:
    """Returns the Markdown of each generated part that there are measurements for."""
    sections = results["sections"]
    found = {"machine": tables.machine(results["machine"], results["settings"])}
    found |= {name: tables.TABLES[name](part) for name, part in sections.items() if part}
    if figures.findings(sections):
        found["expectations"] = tables.expectations(sections)
    return found


def write(results: Result, page: Path, plots: Path) -> None:
    """Writes the tables between the markers of `page`, and the plots into the folder `plots`.

    What was not measured is left as it is.

    Raises:
      ValueError: `page` lacks a marker.
    """
    text = page.read_text()
    for name, content in blocks(results).items():
        text = replaced(text, name, content)
    page.write_text(text)
    plots.mkdir(exist_ok=True)
    for name, picture in pictures(results["sections"]).items():
        (plots / f"{name}.svg").write_text(picture)


def replaced(text: str, name: str, content: str) -> str:
    """Returns `text` with `content` between the markers called `name`.

    Raises:
      ValueError: There is not exactly one such pair of markers.
    """
    begin, end = f"<!-- begin:{name} -->", f"<!-- end:{name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    result, count = pattern.subn(lambda _: f"{begin}\n{content}\n{end}", text)
    if count != 1:
        raise ValueError(f"There must be one pair of markers {begin} … {end}, not {count}.")
    return result


def pictures(sections: Result) -> dict[str, str]:
    """Returns the SVG of each plot that there are measurements for."""
    return {
        name: draw(sections[section])
        for name, (section, draw) in _PICTURES.items()
        if sections.get(section)
    }


def _stop(results: list[Result]) -> str:
    names = [name for name in ways.WAYS if not name.startswith("floor")]
    return chart(
        "Training stopped by one save (logarithmic; line: least to most)",
        [_panel(r, names, seconds("stopped")) for r in results],
        tables.duration,
        logarithmic=True,
    )


def _headline(results: list[Result]) -> str:
    """Returns the bars of the documentation's first page: one state, asynchronous saves."""
    return chart(
        "Training stopped by one asynchronous save",
        [_panel(results[0], ways.ASYNC, seconds("stopped"))],
        tables.duration,
        logarithmic=False,
        width=620,
    )


def _pace(results: list[Result]) -> str:
    return chart(
        "Slowest step during a save, in usual steps",
        [_panel(r, ways.ASYNC, figures.slowest_step) for r in results],
        lambda number: f"{number:.1f} ×",
        logarithmic=False,
    )


def _memory(results: list[Result]) -> str:
    panels: dict[str, list[Bar]] = {}
    for result in results:
        if result["peaks"]:
            shares = figures.memory_shares(result)
            label = ways.WAYS[result["way"]].label
            bar = Bar(label, max(shares), min(shares), max(shares), _ours(result["way"]))
            title = f"{result['state']}, {figures.workers(result['workers'])}"
            panels.setdefault(title, []).append(bar)
    return chart(
        "Memory that a save takes, in the worker's share of the state",
        [Panel(title, bars) for title, bars in panels.items()],
        lambda number: f"{number:.2f}",
        logarithmic=False,
    )


def _restore(results: list[Result]) -> str:
    rounds = [[{n: {"s": s} for n, s in r.items()} for r in part["rounds"]] for part in results]
    panels = []
    for part, its in zip(results, rounds, strict=True):
        bars = [_bar(its, n, label, seconds("s")) for n, label in restores.LABELS.items()]
        panels.append(Panel(part["state"], [bar for bar in bars if bar is not None]))
    return chart("Seconds to restore (logarithmic)", panels, tables.duration, logarithmic=True)


def _panel(result: Result, names: Iterable[str], of: Callable[[Result], float]) -> Panel:
    bars = [_bar(result["rounds"], name, ways.WAYS[name].label, of) for name in names]
    processes = "" if result.get("workers", 1) == 1 else f", {result['workers']} processes"
    return Panel(result["state"] + processes, [bar for bar in bars if bar is not None])


def _bar(rounds: list[Any], name: str, label: str, of: Callable[[Result], float]) -> Bar | None:
    found = figure(rounds, name, of)
    if found is None:
        return None
    return Bar(label.replace("`", ""), found.median, found.least, found.most, _ours(name))


def _ours(name: str) -> bool:
    return name.startswith("distckpt")


# The section that each picture shows, and what draws it.
_PICTURES: dict[str, tuple[str, Callable[[list[Result]], str]]] = {
    "headline": ("stop", _headline),
    "stop": ("stop", _stop),
    "pace": ("pace", _pace),
    "memory": ("memory", _memory),
    "restore": ("restore", _restore),
    "scale": ("scale", scaling.picture),
}
