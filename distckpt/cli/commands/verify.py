"""``distckpt verify``: reads every byte and compares it with the checksums."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from distckpt.cli import completion, output, reports
from distckpt.cli.target import find_checkpoint, find_directory, nothing_in, was_deleted
from distckpt.core import layout, listings
from distckpt.errors import CheckpointDamagedError, ConfigurationError

if TYPE_CHECKING:
    from rich.progress import Progress

    from distckpt.core.manifest import Manifest
    from distckpt.storage.base import Storage

_EPILOG = f"""\b
Examples:
  distckpt verify /checkpoints/run-1                    (the newest)
  distckpt verify /checkpoints/run-1/ckpt-120
  distckpt verify /checkpoints/run-1 --all --json

{output.CODES}"""

VERIFIED, NOT_VERIFIED, NONE = "verified", "not verified", "none"
_SAID = {
    VERIFIED: "every byte, and the manifest by its own checksum",
    NOT_VERIFIED: "every byte, but the manifest is of an older distckpt and has no checksum",
    NONE: "every byte; a plain TensorFlow checkpoint, without a manifest",
}


@click.command(
    "verify",
    short_help="Read every byte and compare it with the checksums.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("checkpoint", default=".", shell_complete=completion.checkpoints)
@click.option("--all", "all_of_them", is_flag=True, help="All checkpoints of the directory.")
@click.option(
    "--threads", type=click.IntRange(1, 64), help="Reading threads. Default: CPUs, at most 4."
)
@click.option(
    "--note",
    is_flag=True,
    help="Note in the directory which checkpoints are good, for keep.LastVerified.",
)
@output.json_option
def verify_command(
    checkpoint: str, all_of_them: bool, threads: int | None, note: bool, as_json: bool
) -> None:
    """Read every byte of CHECKPOINT (or a directory's newest) and compare it with its checksum.

    This checks the manifest (by its own checksum), the index, the size of every file, every tensor,
    and the state of single workers; for a plain TensorFlow checkpoint, the index and every tensor.
    For a damaged checkpoint, the command names the first damaged tensor and its file. It changes
    nothing, apart from the notes of --note.
    """
    storage, directory, names = _targets(checkpoint, all_of_them)
    results: list[dict[str, str | bool]] = []
    for name in names:
        problem, manifest = verify_all_bytes(storage, directory, name, threads, not as_json)
        said = "" if problem else _of_manifest(manifest)
        results.append({"name": name, "good": not problem, "problem": problem, "manifest": said})
        if note and not problem:
            _write_note(storage, directory, name)
        if not as_json:
            path = layout.join(directory, name)
            reports.say(f"{_mark(not problem)} {path}: {problem or _SAID[said]}")
    if as_json:
        output.print_json({"directory": directory, "checkpoints": results})
    elif all_of_them:
        _sum_up(directory, results)
    if not all(result["good"] for result in results):
        click.get_current_context().exit(output.WRONG)


def _sum_up(directory: str, results: list[dict[str, str | bool]]) -> None:
    """Says how many are good, and what to do about the others."""
    bad = [result["name"] for result in results if not result["good"]]
    count = output.plural(len(results), "checkpoint")
    if not bad:
        click.echo(f"{count}: all good.")
        return
    click.echo(f"{count}: {len(results) - len(bad)} good, {len(bad)} damaged.")
    skipped = "A restore skips the damaged ones."
    click.echo(
        f"{skipped if len(bad) < len(results) else reports.NOTHING_TO_RESTORE} Copy their files "
        f"back from a backup, or move them away: {', '.join(f'{name}.*' for name in bad)}"
    )


def _of_manifest(manifest: Manifest | None) -> str:
    """Returns how the manifest of a good checkpoint was verified."""
    if manifest is None:
        return NONE
    return VERIFIED if manifest.checksum_verified else NOT_VERIFIED


def _mark(good: bool) -> str:
    return click.style("ok  ", fg="green") if good else click.style("FAIL", fg="red", bold=True)


def _targets(argument: str, all_of_them: bool) -> tuple[Storage, str, list[str]]:
    if not all_of_them:
        target = find_checkpoint(argument, without_index=True)
        return target.storage, target.directory, [target.name]
    storage, directory = find_directory(argument)
    found = listings.classify(storage.list(directory)).checkpoints
    names = [n for n, files in found.items() if files.has_index or files.has_manifest]
    names = [n for n in names if not was_deleted(storage, directory, n)]
    if not names:
        raise ConfigurationError(nothing_in(storage, directory, argument))
    return storage, directory, names


def verify_all_bytes(
    storage: Storage, directory: str, name: str, threads: int | None = None, show: bool = True
) -> tuple[str, Manifest | None]:
    """Verifies a checkpoint; returns the problem, or "", and its manifest, if it has one."""
    from distckpt.restoring.verifier import Verifier
    from distckpt.storage.retrying_reader import RetryingReader

    try:
        with _bar(name, show) as bar:
            verifier = Verifier(RetryingReader(storage), directory, threads)
            return "", verifier.verify(name, progress=bar)
    except CheckpointDamagedError as error:
        return str(error), None


def _write_note(storage: Storage, directory: str, name: str) -> None:
    from distckpt.directory import verification_notes
    from distckpt.directory.catalog import Catalog
    from distckpt.runtime import host
    from distckpt.storage.retrying_reader import RetryingReader

    crc32c = Catalog(RetryingReader(storage), directory).index_crc32c(name)
    why = f"verified on {host.name()} (pid {host.pid()})"
    verification_notes.write(
        storage, layout.verified_folder(directory), name, crc32c, why, durable=True
    )


class Bar:
    """Shows the progress of a verification. Thread-safe."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None)
        self._lock = threading.Lock()

    def enter(self, phase: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
        """See `distckpt.messaging.progress.Progressing`."""
        self._progress.update(self._task, total=total)

    def add(self, size: int) -> None:
        """See `distckpt.messaging.progress.Progressing`."""
        with self._lock:
            self._progress.advance(self._task, size)


@contextlib.contextmanager
def _bar(name: str, show: bool) -> Iterator[Bar | None]:
    """Yields a bar on a terminal, else None; the bar disappears at the end."""
    with output.progress(show=show) as progress:
        yield Bar(progress, name) if progress is not None else None
