"""``distckpt rollback``: makes an older checkpoint the newest."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output, table
from distckpt.cli.commands.verify import verify_all_bytes
from distckpt.cli.target import find_checkpoint, find_directory
from distckpt.core import layout
from distckpt.errors import CheckpointDamagedError, ConfigurationError

if TYPE_CHECKING:
    from distckpt.storage.base import Storage

_EPILOG = f"""\b
Examples:
  distckpt rollback /checkpoints/run-1 ckpt-120 --dry-run
  distckpt rollback /checkpoints/run-1 ckpt-120
  distckpt rollback /checkpoints/run-1 ckpt-120 --delete --yes

{changing.EXPLAINED}
{output.CODES}"""


@click.command(
    "rollback",
    short_help="Go back to an older checkpoint; set aside later ones.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", shell_complete=completion.directories)
@click.argument("name")
@click.option("--delete", is_flag=True, help="Delete later checkpoints; this cannot be undone.")
@changing.dry_run_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@changing.take_over_option
def rollback_command(
    directory: str, name: str, delete: bool, dry_run: bool, yes: bool, take_over: bool
) -> None:
    """Make NAME the newest checkpoint in DIRECTORY: the next job, and TensorFlow, continue from it.

    Every byte of NAME is verified first. Later checkpoints are moved into a folder of DIRECTORY,
    which is itself a TensorFlow checkpoint directory; the command prints how to undo the move. The
    next rollback, or the next save of a job, finishes an interrupted rollback.
    """
    storage, path = find_directory(directory)
    target = find_checkpoint(layout.join(path, name.rpartition("/")[2]))
    later = _later(storage, path, target.name)
    if later:
        _verify(storage, path, target.name)
        size = _show(storage, path, later, delete, dry_run)
        if not dry_run and not yes:
            _ask(target.name, len(later), size, delete)
    elif not _has_begun(storage, path):
        click.echo(f"{target.name} is already the newest.")
        return
    if not dry_run:
        _go_back(storage, path, target.name, delete, take_over)


def _later(storage: Storage, path: str, name: str) -> tuple[str, ...]:
    """Returns the checkpoints after a checkpoint; refuses if one is pinned or leased."""
    from distckpt.maintenance.rollback_plan import RollbackPlanner

    planner = RollbackPlanner(storage, path, name, time.time())
    later = planner.later()
    planner.check_holds(later)
    return later


def _has_begun(storage: Storage, path: str) -> bool:
    return storage.exists(layout.rollback_path(path))


def _verify(storage: Storage, path: str, name: str) -> None:
    problem, _ = verify_all_bytes(storage, path, name)
    if problem:
        raise CheckpointDamagedError(f"{problem} Nothing was changed.")


def _go_back(storage: Storage, path: str, name: str, delete: bool, take_over: bool) -> None:
    from distckpt.maintenance.exclusive_access import ExclusiveAccess
    from distckpt.maintenance.rollback_plan import RollbackPlanner

    with ExclusiveAccess(storage, path, take_over=take_over) as access:
        rollbacks, folder = access.rollbacks, access.finished
        planner = RollbackPlanner(storage, path, name, time.time())  # as it is now
        later = planner.later()
        if later:
            planner.check_holds(later)
            folder = rollbacks.run(planner.plan(later, access.ownership.term or 0))
        if folder is not None and delete:
            rollbacks.delete(folder)
    click.echo(f"{name} is the newest now.")
    if folder is not None:
        _explain(path, folder, delete)


def _explain(path: str, folder: str, delete: bool) -> None:
    """Says where the later checkpoints are."""
    if delete:
        click.echo("Later checkpoints are deleted.")
        return
    click.echo(f"Later checkpoints are in {folder}, a checkpoint directory of its own.")
    if "://" in path:
        click.echo("To undo that, before anything is saved here, move its files back.")
        return
    here, there = shlex.quote(path), shlex.quote(folder)
    click.echo("To undo that, before anything is saved here:")
    click.echo(f"  mv {there}/* {here}/ && rmdir {there}")


def _show(storage: Storage, path: str, later: Sequence[str], delete: bool, dry_run: bool) -> int:
    """Shows what is set aside or deleted; returns its number of bytes."""
    from distckpt.inspection import inventory

    found = {item.name: item for item in inventory.take(storage, path, time.time()).items}
    items = [found[name] for name in later if name in found]
    verb = "deleted" if delete else "set aside"
    table.print_table(
        ["", "checkpoint", "step", "size"],
        [
            [
                f"would be {verb}" if dry_run else verb,
                item.name,
                "-" if item.step is None else str(item.step),
                output.size(item.bytes),
            ]
            for item in items
        ],
        right="llrr",
    )
    total = sum(item.bytes for item in items)
    click.echo(f"{output.size(total)} in {len(later)} checkpoints.")
    return total


def _ask(name: str, count: int, size: int, delete: bool) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("Cannot ask without a terminal; give --yes or --dry-run.")
    what = f"{count} later checkpoints ({output.size(size)})"
    verb = "DELETE" if delete else "set aside"
    click.confirm(f"Go back to {name} and {verb} {what}?", abort=True)
