"""``distckpt gc``: removes what is left over."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output
from distckpt.cli.target import find_directory

if TYPE_CHECKING:
    from distckpt.roles.leftovers import Leftover

_EPILOG = f"""\b
Examples:
  distckpt gc /checkpoints/run-1 --dry-run
  distckpt gc /checkpoints/run-1

{changing.EXPLAINED}
{output.CODES}"""


@click.command(
    "gc",
    short_help="Remove what dead jobs have left; no checkpoint.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", default=".", shell_complete=completion.directories)
@changing.dry_run_option
@changing.take_over_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def gc_command(directory: str, dry_run: bool, take_over: bool, as_json: bool) -> None:
    """Remove what dead jobs have left in DIRECTORY; no checkpoint is touched.

    That is: saves that did not end, deletions that did not end, files that were being written,
    notes, pins and leases about what is gone. A job does the same with its first save, mostly. What
    is not distckpt's is shown, and left.
    """
    from distckpt.roles import owner
    from distckpt.roles.caretaker import Caretaker, in_use
    from distckpt.roles.leftovers import Leftovers

    storage, path = find_directory(directory)
    found = Leftovers(storage, path, time.time()).find()
    ours = [leftover for leftover in found if not leftover.foreign]
    if ours and not dry_run:
        with Caretaker(storage, path, take_over=take_over) as caretaker:
            caretaker.clean_up(time.time())
        left = {leftover.name for leftover in Leftovers(storage, path, time.time()).find()}
        ours = [leftover for leftover in ours if leftover.name not in left]
    if as_json:
        output.print_json(_document(path, ours, found, dry_run))
        return
    _print(directory, ours, found, dry_run)
    who = owner.find(storage, path) if dry_run and ours else None
    if who is not None and who.may_run:
        click.echo(in_use(directory, who))


def _document(
    path: str, ours: Sequence[Leftover], found: Sequence[Leftover], dry_run: bool
) -> dict[str, object]:
    return {
        "directory": path,
        "dry_run": dry_run,
        "removed": [dataclasses.asdict(leftover) for leftover in ours],
        "left": [dataclasses.asdict(leftover) for leftover in found if leftover.foreign],
    }


def _print(
    directory: str, ours: Sequence[Leftover], found: Sequence[Leftover], dry_run: bool
) -> None:
    verb = "would go" if dry_run else "removed"
    rows = [(verb, one) for one in ours] + [("left", one) for one in found if one.foreign]
    if rows:
        output.print_table(
            ["", "what", "size", "why"],
            [[verb, one.name, output.size(one.bytes), one.why] for verb, one in rows],
            right="llrl",
        )
    if not ours:
        click.echo(f"Nothing is left over in {directory}.")
        return
    total = output.size(sum(one.bytes for one in ours))
    click.echo(f"{total} {'would be' if dry_run else 'are'} free again.")
