"""Feeds wrong bytes to all that reads files from a shared disk:

    python -m tests.fuzz.mutate --inputs 1000000

Nothing but errors of distckpt may come of it, and no more memory than is in proportion to the
input. Exit code 1 otherwise; the input is then printed.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import tracemalloc

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .mutations import mutate
from .targets import BASE, FACTOR, Target, targets

# Memory is measured in one of so many inputs: that takes long.
MEASURED = 20


@dataclasses.dataclass
class Tally:
    """What became of the inputs of one target."""

    accepted: int = 0
    refused: int = 0
    most_memory: int = 0  # bytes, beyond FACTOR times the input


class Broken(AssertionError):
    """A parser did what it must not do."""


def feed(target: Target, inputs: int, seed: int) -> Tally:
    """Feeds so many mutations to a parser.

    Raises:
      Broken: It raised what it must not raise, or took too much memory.
    """
    chance, tally = random.Random(f"{target.name} {seed}"), Tally()
    for number in range(inputs):
        data = mutate(chance.choice(target.seeds), chance)
        measured = number % MEASURED == 0
        if measured:
            tracemalloc.start()
        try:
            accepted = target.accepts(data)
            memory = tracemalloc.get_traced_memory()[1] if measured else 0
        except BaseException as error:
            raise Broken(f"{target.name}: {type(error).__name__}: {error} for {data!r}") from error
        finally:
            tracemalloc.stop()
        tally.accepted += accepted
        tally.refused += not accepted
        tally.most_memory = max(tally.most_memory, memory - FACTOR * len(data))
        if tally.most_memory > BASE:
            raise Broken(f"{target.name}: {memory} bytes for {len(data)} of input: {data!r}")
    return tally


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--inputs", default=100_000, show_default=True, help="How many, of each kind.")
@click.option("--seed", default=1, show_default=True, help="Which ones.")
@click.option("--target", type=click.Choice(list(targets())), help="Only this kind.")
def main(inputs: int, seed: int, target: str | None) -> None:
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
            tried = tally.accepted + tally.refused
            table.add_row(name, f"{tried:,}", f"{tally.refused:,}", f"{tally.accepted:,}", "0")
    except Broken as error:
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
    console.print(table)


if __name__ == "__main__":
    main()
