"""Feeds wrong bytes to all that reads files from a shared disk:

    python -m tests.fuzz.mutate --inputs 1000000

Nothing but errors of distckpt may come of it, and no more memory than is in proportion to the
input. Exit code 1 otherwise; the input is then printed.
"""

from __future__ import annotations

import logging
import random
import sys

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .judge import Broken, Tally, judge
from .mutations import mutate
from .targets import Target, targets


def feed(target: Target, inputs: int, seed: int) -> Tally:
    """Feeds so many mutations to a parser.

    Raises:
      Broken: It did what it must not do; the text has the input.
    """
    chance, tally = random.Random(f"{target.name} {seed}"), Tally()
    for _ in range(inputs):
        data = mutate(chance.choice(target.seeds), chance)
        try:
            judge(target, data, tally)
        except Broken as error:
            raise Broken(f"{error} for {data!r}") from error
    return tally


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--inputs", default=100_000, show_default=True, help="How many, of each kind.")
@click.option("--seed", default=1, show_default=True, help="Which ones.")
@click.option("--target", type=click.Choice(list(targets())), help="Only this kind.")
def main(inputs: int, seed: int, target: str | None) -> None:
    logging.disable()
    console = Console()
    table = Table("File", "Tried", "Refused", "Accepted", "Crashes")
    try:
        for name in [target] if target else targets():
            tally = Tally()
            batch = max(1, inputs // 100)
            for part in track(range(0, inputs, batch), name, console=console, transient=True):
                one = feed(targets()[name], min(batch, inputs - part), seed + part)
                tally.accepted += one.accepted
                tally.refused += one.refused
            table.add_row(
                name, f"{tally.tried:,}", f"{tally.refused:,}", f"{tally.accepted:,}", "0"
            )
    except Broken as error:
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
    console.print(table)


if __name__ == "__main__":
    main()
