"""Simulates whole jobs, many of them:

    python -m tests.simulation --runs 1000000          until something is broken, or to the end
    python -m tests.simulation --runs 100000 --programs   runs in which the program has mishaps
    python -m tests.simulation --seed 7.1234           tells what happens in one run
    python -m tests.simulation --bug term_is_ignored  shows that a bug is found

Run it from the repository's root, with the Python of .venv.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .bugs import BUGS, FOCUS, with_bug
from .coverage import TRANSITIONS
from .run import Result, is_program, play
from .search import Summary, find, play_all
from .shrink import shrink

FOUND = Path(__file__).with_name("found")
# Broken runs that are made short and told, which takes long; of others only the seed is printed.
MOST_TOLD = 3


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--runs", default=100_000, show_default=True, help="How many runs to play.")
@click.option("--series", default=1, show_default=True, help="Which runs: another, others.")
@click.option("--programs", is_flag=True, help="Runs in which the program has mishaps.")
@click.option("--processes", type=int, help="How many at a time. Default: one for each CPU.")
@click.option("--seed", help="Tells the events of this one run.")
@click.option("--bug", type=click.Choice(["all", *BUGS]), help="Looks for a bug put in on purpose.")
@click.option("--save", is_flag=True, help="Writes what is found to the folder found.")
def main(
    runs: int,
    series: int,
    programs: bool,
    processes: int | None,
    seed: str | None,
    bug: str | None,
    save: bool,
) -> None:
    console = Console()
    if seed is not None:
        with with_bug(bug):
            result = play(seed, focus=FOCUS.get(bug or ""), tell=True)
        tell(console, result)
        sys.exit(result.violation is not None)
    if bug is not None:
        names = list(BUGS) if bug == "all" else [bug]
        missed = [name for name in names if not hunt(console, name, series, runs, save)]
        sys.exit(bool(missed))
    base = f"p{series}" if programs else series
    sys.exit(simulate(console, base, runs, processes, save))


def simulate(
    console: Console, series: int | str, runs: int, processes: int | None, save: bool
) -> bool:
    """Plays the runs; prints what they came to; returns whether something was broken.

    Ctrl-C ends it early; then it prints what the runs until then came to.
    """
    total, began = Summary(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("runs", total=runs)
        with contextlib.suppress(KeyboardInterrupt):
            for summary in play_all(series, runs, processes):
                total.merge(summary)
                bar.advance(task, summary.runs)
    console.print(table_of(total))
    console.print(coverage_of(total))
    seconds = time.monotonic() - began
    early = f" of {runs:,}" if total.runs < runs else ""
    console.print(f"{total.runs:,}{early} runs in {seconds:.0f} s; broken: {len(total.broken)}")
    for seed, violation in total.broken[MOST_TOLD:]:
        console.print(f"Run {seed}: {violation}", markup=False, soft_wrap=True)
    for seed, violation in total.broken[:MOST_TOLD]:
        console.print(f"\nRun {seed}: {violation}", markup=False)
        tell(console, explain(seed, None, None, save))
    return bool(total.broken)


def hunt(console: Console, bug: str, series: int, limit: int, save: bool) -> bool:
    """Looks for a bug; returns whether it was found."""
    found = find(bug, series, limit)
    if found is None:
        console.print(f"{bug}: NOT found in {limit:,} runs")
        return False
    seed, violation, played = found
    console.print(f"{bug}: found in run {played:,}, seed {seed}: {violation}", markup=False)
    if save:
        explain(seed, bug, bug, save)
    return True


def explain(seed: str, bug: str | None, name: str | None, save: bool) -> Result:
    """Makes a broken run short; returns it, told; writes it to a file if `save`."""
    focus = FOCUS.get(bug or "")
    with with_bug(bug):
        long = play(seed, focus=focus).choices
        focus = {**(focus or {}), "program": True} if is_program(seed, focus) else focus
        short = shrink(long, lambda g: play(given=g, focus=focus).violation is not None)
        result = play(given=short, focus=focus, tell=True)
    if save:
        FOUND.mkdir(exist_ok=True)
        content = {
            "bug": bug,
            "focus": focus,
            "broken": result.violation,
            "choices": short,
            "story": list(result.story),
        }
        path = FOUND / f"{name or seed}.json"
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return result


def tell(console: Console, result: Result) -> None:
    """Prints the story of a run."""
    for line in result.story:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def table_of(total: Summary) -> Table:
    """Returns a table of what was done and what befell whom."""
    table = Table("What", "How often", title="Runs")
    table.add_row("checkpoints committed", f"{total.commits:,}")
    for kind, count in sorted(total.struck.items()):
        table.add_row(f"fault: {kind}", f"{count:,}")
    return table


def coverage_of(total: Summary) -> Table:
    """Returns a table of the protocol's transitions."""
    table = Table("Machine", "State", "Event", "How often", title="Protocol")
    for transition in sorted(TRANSITIONS | total.visited.keys()):
        known = transition in TRANSITIONS
        count = total.visited[transition]
        table.add_row(*transition, f"{count:,}" + ("" if known else " (unknown)"))
    seen = len(TRANSITIONS & total.visited.keys())
    table.caption = f"{seen} of {len(TRANSITIONS)} transitions"
    return table


if __name__ == "__main__":
    main()
