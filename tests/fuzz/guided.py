"""Searches for bytes that a parser does not stand, led by the branches that they reach in it:

    python -m tests.fuzz.guided --target manifest --seconds 60

As in `mutate`, nothing but errors of distckpt may come of it, and no more memory than is in
proportion to the input; but atheris makes up the inputs, from honest ones. Each target has a
process of its own. Exit code 1 if a parser broke, 2 if atheris is not installed.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import click
from rich.console import Console
from rich.table import Table

from .targets import Target

MISSING = (
    "This command needs atheris, which is not installed: launch/setup_venv.sh test fuzz\n"
    'or: pip install ".[fuzz]" -c constraints.txt (there are packages for Linux on x86-64).'
)
STARTING = 120  # seconds, beyond its time, that a process may take to start and to end
SHOWN = 2000  # characters of what a process said that did not end as it should


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the inputs of one target, and the text of each crash."""

    accepted: int
    refused: int
    crashes: tuple[str, ...]


def available() -> bool:
    """Returns whether atheris is installed."""
    try:
        return importlib.util.find_spec("atheris") is not None
    except ValueError:  # somebody has said that it must not be imported
        return False


def search(module: str, target: Target, seconds: float, seed: int, patience: int) -> Outcome:
    """Runs one target. If a parser broke, the inputs that did it stay where the texts say.

    Args:
      module: Whose `targets` has the target.
      target: Which one.
      seconds: How long, without the start of the process.
      seed: Which inputs; the time being the limit, another run may yet get farther.
      patience: How many seconds one input may take.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"fuzz-{target.name}-"))
    (folder / "corpus").mkdir()
    for number, data in enumerate(target.seeds):
        (folder / "corpus" / f"seed-{number}").write_bytes(data)
    command = [sys.executable, "-m", f"{__package__}.guide", module, target.name]
    said = folder / "log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [*command, str(seconds), str(seed), str(patience), str(folder)],
            stdout=log,
            stderr=log,
        )
        try:
            process.wait(seconds + patience + STARTING)
        except BaseException:
            process.kill()
            process.wait()
            raise
    outcome = _outcome(folder, said, process.returncode)
    if not outcome.crashes:
        shutil.rmtree(folder)
    return outcome


def _outcome(folder: pathlib.Path, said: pathlib.Path, code: int) -> Outcome:
    try:
        result = json.loads((folder / "result.json").read_bytes())
    except FileNotFoundError:  # killed, by libFuzzer if it took too long or too much memory
        end = said.read_text(errors="replace")[-SHOWN:]
        why = _LIBFUZZER.get(code, "it ended without a result")
        return Outcome(0, 0, (f"{why} (exit code {code}); see {folder}:\n{end}",))
    return Outcome(result["accepted"], result["refused"], tuple(result["crashes"]))


# The exit codes by which libFuzzer says what it has ended for.
_LIBFUZZER = {70: "an input took too long", 71: "an input took too much memory"}


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--target", "wanted", multiple=True, help="Only this kind; may be given again.")
@click.option("--seconds", default=60.0, show_default=True, help="How long, for each kind.")
@click.option("--seed", default=1, show_default=True, help="Which inputs.")
@click.option("--patience", default=20, show_default=True, help="Seconds for one input.")
@click.option("--module", default=f"{__package__}.targets", hidden=True, help="Other parsers.")
def main(wanted: tuple[str, ...], seconds: float, seed: int, patience: int, module: str) -> None:
    if not available():
        click.echo(MISSING, err=True)
        sys.exit(2)
    known = importlib.import_module(module).targets()
    if unknown := set(wanted) - known.keys():
        raise click.BadParameter(f"{sorted(unknown)[0]} is none of {', '.join(known)}.")
    console, broken = Console(), False
    table = Table("File", "Tried", "Refused", "Accepted", "Crashes")
    for name in wanted or known:
        with console.status(f"{name}, {seconds:g} s"):
            found = search(module, known[name], seconds, seed, patience)
        counts = (found.accepted + found.refused, found.refused, found.accepted, len(found.crashes))
        table.add_row(name, *(f"{count:,}" for count in counts))
        for text in found.crashes:
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        broken = broken or bool(found.crashes)
    console.print(table)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
