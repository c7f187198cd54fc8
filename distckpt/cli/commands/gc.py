"""``distckpt gc``: removes leftovers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output, reports, table
from distckpt.cli.target import find_directory
from distckpt.core import layout

if TYPE_CHECKING:
    from distckpt.core.rollback_record import Rollback
    from distckpt.maintenance.leftovers import Leftover

_EPILOG = f"""\b
Examples:
  distckpt gc /checkpoints/run-1 --dry-run
  distckpt gc /checkpoints/run-1

{changing.EXPLAINED}"""


@click.command(
    "gc",
    short_help="Remove the leftovers of dead jobs, but no checkpoint.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", default=".", shell_complete=completion.directories)
@changing.dry_run_option
@changing.take_over_option
@output.json_option
def gc_command(directory: str, dry_run: bool, take_over: bool, as_json: bool) -> None:
    """Remove the leftovers of dead jobs in DIRECTORY, but no checkpoint.

    Leftovers are unfinished saves, deletions and files, and notes, pins and leases of deleted
    checkpoints. An interrupted rollback is finished. The first save of a job does most of this,
    too. Foreign files are shown and kept.
    """
    from distckpt.maintenance.exclusive_access import ExclusiveAccess
    from distckpt.maintenance.leftovers import Garbage

    storage, path = find_directory(directory)
    found = Garbage(storage, path, time.time()).find()
    ours = [leftover for leftover in found if not leftover.foreign]
    rollback: Rollback | None = None
    if ours and not dry_run:
        with ExclusiveAccess(storage, path, take_over=take_over, only_deletes=True) as access:
            access.clean_up(time.time())
            rollback = access.finished
        left = {leftover.name for leftover in Garbage(storage, path, time.time()).find()}
        ours = [leftover for leftover in ours if leftover.name not in left]
    if as_json:
        output.print_json({**_document(path, ours, found, dry_run), **_finished(path, rollback)})
        return
    _print(path, ours, found, dry_run)
    changing.say_finished(path, rollback)
    if dry_run and ours:
        changing.mention_owner(storage, path)


def _document(
    path: str, ours: Sequence[Leftover], found: Sequence[Leftover], dry_run: bool
) -> dict[str, object]:
    return {
        "directory": path,
        "dry_run": dry_run,
        "removed": [dataclasses.asdict(leftover) for leftover in ours],
        "left": [dataclasses.asdict(leftover) for leftover in found if leftover.foreign],
    }


def _finished(path: str, rollback: Rollback | None) -> dict[str, object]:
    """Returns what ``--json`` prints about an interrupted rollback that was finished."""
    if rollback is None:
        return {"finished": None}
    folder = layout.join(path, rollback.folder)
    names = list(rollback.names)
    return {"finished": {"newest": rollback.to, "checkpoints": names, "folder": folder}}


def _print(path: str, ours: Sequence[Leftover], found: Sequence[Leftover], dry_run: bool) -> None:
    verb = "would be removed" if dry_run else "removed"
    rows = [(verb, one) for one in ours] + [("kept", one) for one in found if one.foreign]
    if rows:
        table.print_table(
            ["", "what", "size", "why"],
            [[verb, one.name, output.size(one.bytes), one.why] for verb, one in rows],
            right="llrl",
            hide=("size",),
        )
    if not ours:
        reports.say(f"Nothing {'else ' if rows else ''}is left over in {path}.")
        return
    total = output.size(sum(one.bytes for one in ours))
    click.echo(f"{total} {'would be' if dry_run else 'was'} freed.")
