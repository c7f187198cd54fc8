"""The tables, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from summary import Figure, Finding

from perf import figures, restores, scaling, ways
from perf.figures import Result, figure, ratio, seconds
from perf.memory import slope

_MEBI = 2**20
# Whose first saves are told: those that have to find out what there is to save.
_FIRSTS = ("distckpt-async", "distckpt", "tensorflow-async", "tensorflow")


def machine(facts: dict[str, str], settings: dict[str, Any]) -> str:
    """Returns the list of what the figures depend on."""
    rounds = settings["rounds"]
    lines = [f"- {name}: {fact}" for name, fact in facts.items()]
    return "\n".join([*lines, f"- rounds that count: {rounds}"])


def expectations(findings: Sequence[Finding]) -> str:
    """Returns what was found, and whether it is what was expected."""
    lines = ["| Measure | Bound | Reached: median (least–most) | Met |", "|---|---|---|---|"]
    for found in findings:
        f, bound = found.figure, ""
        if found.expected is not None:
            bound = f"{found.expected[0]} {found.expected[1]:.3g}{found.unit}"
        numbers = f"{f.median:.3g} ({f.least:.3g}–{f.most:.3g}){found.unit}"
        lines.append(f"| {found.name} | {bound} | {numbers} | {found.verdict} |")
    return "\n".join(lines)


def stop(results: list[Result]) -> str:
    """Returns a table for each state, and one of the saves after a change."""
    parts = [_stop(result) for result in results]
    if any(result["changed"] for result in results):
        parts.append(_changed(results))
    return "\n\n".join(parts)


def _stop(result: Result) -> str:
    processes = "" if result["workers"] == 1 else f", {result['workers']} processes"
    rows = [
        f"**{result['state']}{processes}**\n",
        "| | Training stopped | ÷ distckpt's | Complete after | On disk | fsync |",
        "|---|---|---|---|---|---|",
    ]
    rounds = result["rounds"]
    for name, way in ways.WAYS.items():
        if name in result["failed"]:
            rows.append(f"| {way.label} | not measured: {result['failed'][name]} | | | | |")
        elif (stopped := figure(rounds, name, seconds("stopped"))) is not None:
            size = figure(rounds, name, seconds("bytes"))
            committed = figure(rounds, name, seconds("committed"))
            cells = [spread(stopped), _times(rounds, name), spread(committed)]
            flushed = "yes" if way.flushed else "no"
            rows.append(f"| {way.label} | {' | '.join(cells)} | {amount(size)} | {flushed} |")
    return "\n".join([*rows, *_unsettled(rounds)])


def _times(rounds: list[Result], name: str) -> str:
    if name == ways.OURS:
        return "1"
    try:
        return plain(ratio(rounds, name, ways.OURS, seconds("stopped")))
    except ValueError:
        return ""


def _unsettled(rounds: list[Result]) -> list[str]:
    samples = [sample for r in rounds for sample in r.values()]
    if not (busy := sum(not sample["settled"] for sample in samples)):
        return []
    return [f"\nBefore {busy} of {len(samples)} saves the disk was not quiet."]


def _changed(results: list[Result]) -> str:
    lines = [
        "**Training stopped by the first save of a process, and by one after a change**\n",
        "| | State | First save | Second, if it compiles | First after a change | Other saves |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        for name in _FIRSTS:
            usual = figure(result["rounds"], name, seconds("stopped"))
            if usual is not None:
                samples = [result[when].get(name) for when in ("first", "second", "changed")]
                cells = ["" if s is None else duration(s["stopped"]) for s in samples]
                label = ways.WAYS[name].label
                row = [label, result["state"], *cells, duration(usual.median)]
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def pace(results: list[Result]) -> str:
    """Returns a table for each state."""
    return "\n\n".join(_pace(result) for result in results)


def _pace(result: Result) -> str:
    rows = [
        f"**{result['state']}**\n",
        "| | Usual step | Slowest without a save | Slowest during a save | "
        "Delay of one save, in all | Complete after |",
        "|---|---|---|---|---|---|",
    ]
    rounds = result["rounds"]
    for name in ways.ASYNC:
        label = ways.WAYS[name].label
        if name in result["failed"]:
            rows.append(f"| {label} | not measured: {result['failed'][name]} | | | | |")
        elif (usual := figure(rounds, name, figures.usual_step)) is not None:
            cells = [
                spread(usual),
                plain(figure(rounds, name, figures.slowest_without)) + " ×",
                plain(figure(rounds, name, figures.slowest_step)) + " ×",
                spread(figure(rounds, name, figures.lost)),
                spread(figure(rounds, name, seconds("committed"))),
            ]
            rows.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(rows)


def memory(results: list[Result]) -> str:
    """Returns a table for each state."""
    states = dict.fromkeys(result["state"] for result in results)
    return "\n\n".join(_memory([r for r in results if r["state"] == s]) for s in states)


def _memory(results: list[Result]) -> str:
    rows = [
        f"**{results[0]['state']}**\n",
        "| | Workers | Share of each | Memory of a save | ÷ share |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        label, count = ways.WAYS[result["way"]].label, result["workers"]
        if not result["peaks"]:
            why = "; ".join(result["failed"].values())
            rows.append(f"| {label} | {count} | not measured: {why} | | |")
            continue
        taken = Figure.of(p["peak"] - p["level"] for p in result["peaks"])
        shares = Figure.of(figures.memory_shares(result))
        own = result["peaks"][0]["state"] / count / _MEBI
        rows.append(
            f"| {label} | {count} | {own:.0f} MiB | {taken.most / _MEBI:.0f} MiB "
            f"| {shares.most:.2f} |"
        )
    return "\n".join(rows)


def leak(results: list[Result]) -> str:
    """Returns the table of what many saves leave behind."""
    rows = [
        f"**{results[0]['state']}**\n",
        "| | Saves | After the first fifth | After the last | Growth each |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        label, resident = ways.WAYS[result["way"]].label, result["resident"]
        if not resident:
            why = "; ".join(result["failed"].values())
            rows.append(f"| {label} | not measured: {why} | | | |")
            continue
        early, last = resident[len(resident) // 5] / _MEBI, resident[-1] / _MEBI
        grows = slope(resident) / 1024
        rows.append(
            f"| {label} | {len(resident)} | {early:.1f} MiB | {last:.1f} MiB | {grows:.1f} KiB |"
        )
    return "\n".join(rows)


def restore(results: list[Result]) -> str:
    """Returns a table for each state."""
    return "\n\n".join(_restore(result) for result in results)


def _restore(result: Result) -> str:
    rows = [f"**{result['state']}**\n", "| | Restored after | ÷ TensorFlow's |", "|---|---|---|"]
    rounds = [{n: {"s": s} for n, s in r.items()} for r in result["rounds"]]
    for name, label in restores.LABELS.items():
        if name in result["failed"]:
            rows.append(f"| {label} | not measured: {result['failed'][name]} | |")
        elif (took := figure(rounds, name, seconds("s"))) is not None:
            try:
                times = plain(ratio(rounds, name, "tensorflow", seconds("s")))
            except ValueError:
                times = ""
            rows.append(f"| {label} | {spread(took)} | {times} |")
    return "\n".join(rows)


def duration(number: float) -> str:
    """Returns seconds as people read them."""
    if abs(number) >= 1.0:
        return f"{number:.2f} s"
    digits = 2 if abs(number) < 0.001 else 1 if abs(number) < 0.1 else 0
    return f"{1000 * number:.{digits}f} ms"


def spread(figure: Figure | None) -> str:
    """Returns median, least and greatest, in seconds."""
    if figure is None:
        return ""
    least, most = duration(figure.least), duration(figure.most)
    return f"{duration(figure.median)} ({least}–{most})"


def plain(figure: Figure | None) -> str:
    """Returns median, least and greatest, without a unit."""
    if figure is None:
        return ""
    return " ".join([_short(figure.median), f"({_short(figure.least)}–{_short(figure.most)})"])


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def amount(figure: Figure | None) -> str:
    """Returns bytes as people read them."""
    return "" if figure is None else f"{figure.median / _MEBI:.1f} MiB"


TABLES = {
    "stop": stop,
    "workers": stop,
    "pace": pace,
    "memory": memory,
    "leak": leak,
    "restore": restore,
    "scale": scaling.table,
}
