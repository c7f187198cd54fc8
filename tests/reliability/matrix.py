"""Strikes a job of three real processes at every step of a save, in every way:

    python -m tests.reliability.matrix                    the whole matrix
    python -m tests.reliability.matrix --only chief-Commit   the cells whose name contains that

After each strike the job is started again with two workers, which must restore what anybody knew
to be saved, or newer, bit for bit, and must leave nothing over. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from distckpt.saving.fault_points import FAULTS

from .cells import Cell, Outcome, all_cells, play
from .cluster import Lost


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--only", multiple=True, help="Cells whose name contains this; may be repeated.")
@click.option("--all-events", is_flag=True, help="Prints every cell, not only the table.")
def main(only: tuple[str, ...], all_events: bool) -> None:
    console = Console()
    cells = [c for c in all_cells() if all(word in str(c) for word in only)]
    outcomes: dict[Cell, Outcome | str] = {}
    began = time.monotonic()
    with console.status("") as status:
        for number, cell in enumerate(cells, 1):
            status.update(f"{number} of {len(cells)}: {cell}")
            outcomes[cell] = attempt(cell)
            if all_events:
                console.print(f"{cell}: {outcomes[cell]}", markup=False, highlight=False)
    lost = {cell: text for cell, text in outcomes.items() if isinstance(text, str)}
    console.print(table_of(outcomes))
    for cell, text in lost.items():
        console.print(f"\nLOST {cell}: {text}", markup=False, highlight=False)
    seconds = time.monotonic() - began
    console.print(f"{len(cells)} cells in {seconds:.0f} s; losses: {len(lost)}")
    sys.exit(bool(lost) or not cells)


def attempt(cell: Cell) -> Outcome | str:
    """Plays a cell; returns its outcome, or what was lost."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return play(cell, Path(folder))
        except Lost as error:
            return str(error)


def table_of(outcomes: dict[Cell, Outcome | str]) -> Table:
    """Returns a table: role and step × fault, with what the restart restored."""
    table = Table("Step", *FAULTS, title="What was restored, of 2 moments × 2 modes")
    rows: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for cell, outcome in outcomes.items():
        row = rows.setdefault((cell.role, cell.point.step), {})
        row.setdefault(cell.point.fault, Counter())[word_for(cell, outcome)] += 1
    for (role, step), faults in rows.items():
        texts = [
            ", ".join(f"{count} {word}" for word, count in faults.get(fault, Counter()).items())
            for fault in FAULTS
        ]
        table.add_row(f"{role} {step}", *texts)
    return table


def word_for(cell: Cell, outcome: Outcome | str) -> str:
    """Returns whether the restart found the save that was struck, or the one before."""
    if isinstance(outcome, str):
        return "LOST"
    return "last" if outcome.restored < cell.point.save else "new"


if __name__ == "__main__":
    main()
