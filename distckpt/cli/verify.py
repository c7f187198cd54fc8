"""``distckpt verify``: reads every byte and compares it with the checksums."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from distckpt.cli import completion, output
from distckpt.cli.target import find_checkpoint, find_directory
from distckpt.core import layout
from distckpt.errors import CheckpointDamagedError, ConfigurationError

if TYPE_CHECKING:
    from rich.progress import Progress

    from distckpt.storage.base import Storage

_EPILOG = f"""\b
Examples:
  distckpt verify /checkpoints/run-1                    (the newest)
  distckpt verify /checkpoints/run-1/ckpt-120
  distckpt verify /checkpoints/run-1 --all --json

{output.CODES}"""


@click.command(
    "verify",
    short_help="Read every byte, and compare it with the checksums.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("checkpoint", default=".", shell_complete=completion.checkpoints)
@click.option("--all", "all_of_them", is_flag=True, help="All checkpoints of the directory.")
@click.option("--threads", type=click.IntRange(1, 64), help="How many read. Default: one a CPU, 4.")
@click.option(
    "--note",
    is_flag=True,
    help="Leave a note in the directory on each that is right, for keep.LastVerified.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify_command(
    checkpoint: str, all_of_them: bool, threads: int | None, note: bool, as_json: bool
) -> None:
    """Read every byte of CHECKPOINT (or a directory's newest) and compare it with its checksum.

    Checked are the manifest, the index, the size of every file, every tensor, and what only single
    workers have. Of a plain TensorFlow checkpoint: the index and every tensor. Of a damaged one the
    first damaged tensor is named, with its file. Nothing is changed, but for the notes of --note.
    """
    storage, directory, names = _targets(checkpoint, all_of_them)
    results: list[dict[str, str | bool]] = []
    for name in names:
        problem = verify_all_bytes(storage, directory, name, threads, not as_json)
        results.append({"name": name, "good": not problem, "problem": problem})
        if note and not problem:
            _write_note(storage, directory, name)
        if not as_json:
            mark = _mark(not problem)
            click.echo(f"{mark} {layout.join(directory, name)}{': ' * bool(problem)}{problem}")
    if as_json:
        output.print_json({"directory": directory, "checkpoints": results})
    if not all(result["good"] for result in results):
        click.get_current_context().exit(output.WRONG)


def _mark(good: bool) -> str:
    return click.style("ok  ", fg="green") if good else click.style("FAIL", fg="red", bold=True)


def _targets(argument: str, all_of_them: bool) -> tuple[Storage, str, list[str]]:
    if not all_of_them:
        target = find_checkpoint(argument)
        return target.storage, target.directory, [target.name]
    storage, directory = find_directory(argument)
    found = layout.classify(storage.list(directory)).checkpoints
    names = [n for n, files in found.items() if files.has_index or files.has_manifest]
    if not names:
        raise ConfigurationError(f"There is no checkpoint in {argument}.")
    return storage, directory, names


def verify_all_bytes(
    storage: Storage, directory: str, name: str, threads: int | None = None, show: bool = True
) -> str:
    """Verifies a checkpoint; returns what is wrong, or ""."""
    from distckpt.roles.patient import PatientReader
    from distckpt.roles.verifier import Verifier

    try:
        with _bar(name, show) as bar:
            Verifier(PatientReader(storage), directory, threads).verify(name, progress=bar)
    except CheckpointDamagedError as error:
        return str(error)
    return ""


def _write_note(storage: Storage, directory: str, name: str) -> None:
    from distckpt.roles import host, notes
    from distckpt.roles.catalog import Catalog
    from distckpt.roles.patient import PatientReader

    crc32c = Catalog(PatientReader(storage), directory).index_crc32c(name)
    why = f"verified on {host.name()} (pid {host.pid()})"
    notes.write(storage, layout.verified_folder(directory), name, crc32c, why, durable=True)


class Bar:
    """Shows how far a verification has got. Thread-safe."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None)
        self._lock = threading.Lock()

    def enter(self, phase: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
        """See `distckpt.roles.progress.Progressing`."""
        self._progress.update(self._task, total=total)

    def add(self, size: int) -> None:
        """See `distckpt.roles.progress.Progressing`."""
        with self._lock:
            self._progress.advance(self._task, size)


@contextlib.contextmanager
def _bar(name: str, show: bool) -> Iterator[Bar | None]:
    """Yields a bar, on a terminal; it goes when it is done."""
    with output.progress(show=show) as progress:
        yield Bar(progress, name) if progress is not None else None
