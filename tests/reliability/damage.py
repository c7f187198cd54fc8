"""Flips single bits in the files of a checkpoint, and checks what is restored then:

    python -m tests.reliability.damage --flips 100000

It must be the newest checkpoint, intact, or the one before it. Otherwise the exit code is 1.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError
from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage
from tests.unit.kit import bundles, lab

NEW, LAST, WRONG = "the newest, whole", "the one before", "WRONG"


@dataclasses.dataclass(frozen=True)
class Flip:
    """One bit of one file of the newest checkpoint."""

    path: Path
    byte: int
    bit: int

    def restored(self) -> str:
        """Returns what is restored with the bit flipped; flips it back."""
        content = self.path.read_bytes()
        changed = bytearray(content)
        changed[self.byte] ^= 1 << self.bit
        self.path.write_bytes(changed)
        try:
            return restored(self.path.parent)
        finally:
            self.path.write_bytes(content)


def make(directory: Path) -> list[Path]:
    """Saves two checkpoints of two workers; returns the files of the newer, and TensorFlow's."""
    chief = lab.Chief(directory, max_to_keep=9)
    chief.save("ckpt-1", 1, 2)
    chief.save("ckpt-2", 2, 2)
    return [directory / "checkpoint", *sorted(directory.glob("ckpt-2.*"))]


def restored(directory: Path) -> str:
    """Returns which checkpoint a reader takes, and whether its bytes are right."""
    storage = LocalStorage()
    for name in Catalog(storage, str(directory)).candidates(time.time()):
        try:
            Verifier(storage, str(directory), threads=1).verify(name)
        except CheckpointDamagedError:
            continue
        expected = bundles.values(int(name[-1]))
        if not lab.same(lab.read_back(directory, name), expected):
            return WRONG
        return NEW if name == "ckpt-2" else LAST
    return "nothing"


def flips(files: list[Path], count: int, seed: int) -> list[Flip]:
    """Returns `count` flips, equally many in each file; all bits of a file that has fewer."""
    chance, chosen = random.Random(seed), []
    for path in files:
        bits = range(8 * path.stat().st_size)
        some = chance.sample(bits, min(len(bits), count // len(files)))
        chosen += [Flip(path, bit // 8, bit % 8) for bit in some]
    return chosen


def count_all(files: list[Path], count: int, seed: int) -> dict[str, Counter[str]]:
    """Tries the flips; returns how often each result came, by the kind of file."""
    found: dict[str, Counter[str]] = {}
    for flip in flips(files, count, seed):
        kind = flip.path.name.removeprefix("ckpt-2.").partition("-")[0]
        found.setdefault(kind, Counter())[flip.restored()] += 1
    return found


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--flips", "count", default=20_000, show_default=True, help="How many bits.")
@click.option("--seed", default=1, show_default=True, help="Which bits.")
def main(count: int, seed: int) -> None:
    console = Console()
    logging.getLogger("distckpt").setLevel(logging.CRITICAL)  # otherwise it explains each one
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        found = count_all(make(Path(folder) / "run"), count, seed)
    outcomes = sorted({outcome for counter in found.values() for outcome in counter})
    table = Table("Bits flipped in", *outcomes)
    for kind, counter in found.items():
        table.add_row(kind, *(f"{counter[outcome]:,}" for outcome in outcomes))
    console.print(table)
    wrong = sum(n for c in found.values() for outcome, n in c.items() if outcome not in (NEW, LAST))
    tried = sum(sum(counter.values()) for counter in found.values())
    console.print(f"{tried:,} flips; wrong or nothing restored: {wrong}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
