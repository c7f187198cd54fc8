"""Writes the generated parts of a page, and its plots; or the same as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from summary import Finding

from perf import figures, programs, quiet, restores, scaling, tables, ways
from perf.figures import Result, figure, seconds
from perf.plots import Bar, Panel, chart
from perf.quiet import Quiet

# Of the benchmarks that are programs of their own, those whose output the page shows.
_SHOWN = ("first_update", "real_training", "data_file", "restoring", "holding")


def as_text(results: Result) -> str:
    """Returns all tables, what was left out, what was expected, and how quiet the machine was."""
    found = blocks(results)
    last = [name for name in ("expectations", "quiet") if name in found]
    order = [*(name for name in found if name not in last), *last]
    return "\n\n".join(f"## {name}\n\n{found[name]}" for name in order)


def blocks(results: Result) -> dict[str, str]:
    """Returns the Markdown of each generated part that there are measurements for."""
    sections = results["sections"]
    found = {"machine": tables.machine(results["machine"], results["settings"])}
    for name, part in sections.items():
        if name in programs.PROGRAMS:
            found[name] = programs.text_block(part)
        elif part:
            found[name] = tables.TABLES[name](part)
    if all_findings(sections) or results.get("left out") or results.get("missing"):
        found["expectations"] = _expectations(results)
    if "quiet" in results:
        found["quiet"] = quiet.summary(_counting(results), results["quiet"]["made"])
    return found


def all_findings(sections: Result) -> list[Finding]:
    """Returns what was found in all sections."""
    return [*figures.findings(sections), *programs.findings(sections)]


def _expectations(results: Result) -> str:
    """Returns the table of what was expected, and what is missing in it."""
    lines = [tables.expectations(all_findings(results["sections"]))]
    missing = {**results.get("missing", {}), **results.get("left out", {})}
    for why in dict.fromkeys(missing.values()):
        names = ", ".join(name for name in missing if missing[name] == why)
        lines.append(f"Not measured: {names}: {why}.")
    return "\n\n".join(lines)


def _counting(results: Result) -> list[tuple[str, Quiet]]:
    return [(title, Quiet(*values)) for title, values in results["quiet"]["counting"]]


def objections(results: Result) -> list[str]:
    """Returns why the page should not show `results`."""
    found = []
    if results["settings"].get("quick"):
        found.append("the states of --quick are too small")
    if results.get("left out"):
        found.append(f"not measured: {', '.join(results['left out'])}")
    if loud := [title for title, one in _counting(results) if one.disturbed]:
        found.append(f"disturbed: {', '.join(dict.fromkeys(loud))}")
    return found


def write(results: Result, page: Path, plots: Path) -> None:
    """Writes the tables between the markers of `page`, and the plots into the folder `plots`.

    What was not measured is left as it is.

    Raises:
      ValueError: `page` lacks a marker.
    """
    text = page.read_text()
    for name, content in blocks(results).items():
        if name not in programs.PROGRAMS or name in _SHOWN:
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
