"""``distckpt rollback``: makes an older checkpoint the newest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output, reports
from distckpt.cli.commands.verify import verify_all_bytes
from distckpt.cli.target import find_checkpoint, find_directory
from distckpt.core import layout
from distckpt.errors import CheckpointDamagedError

if TYPE_CHECKING:
    from distckpt.inspection.inventory import Item
    from distckpt.storage.base import Storage

_EPILOG = f"""\b
Examples:
  distckpt rollback /checkpoints/run-1 ckpt-120 --dry-run
  distckpt rollback /checkpoints/run-1 ckpt-120
  distckpt rollback /checkpoints/run-1 ckpt-120 --delete --yes

{changing.EXPLAINED}"""
_WOULD = "would be set aside"


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
@output.json_option
def rollback_command(
    directory: str,
    name: str,
    delete: bool,
    dry_run: bool,
    yes: bool,
    take_over: bool,
    as_json: bool,
) -> None:
    """Make NAME the newest checkpoint in DIRECTORY: the next job, and TensorFlow, continue from it.

    Every byte of NAME is verified first. Later checkpoints are moved into a folder of DIRECTORY,
    which is itself a TensorFlow checkpoint directory; the command prints how to undo the move. The
    next rollback, or the next save of a job, finishes an interrupted rollback.
    """
    storage, path = find_directory(directory)
    name = find_checkpoint(layout.join(path, name.rpartition("/")[2])).name
    later = _items(storage, path, _later(storage, path, name))
    is_needed = bool(later) or storage.exists(layout.rollback_path(path))
    if is_needed and not dry_run:
        changing.check_not_in_use(storage, path, take_over=take_over)
    _verify(storage, path, name, show=not as_json)
    if later and not as_json:
        verbs = ("to delete", "would be deleted") if delete else ("to set aside", _WOULD)
        changing.show(later, verbs[dry_run])
        for item in reports.damaged(later):
            reports.damage(item.name, item.problem)
    folder = None
    if is_needed and not dry_run:
        if later and not yes:
            _ask(name, later, delete, as_json)
        folder = _go_back(storage, path, name, delete, take_over)
    if as_json:
        output.print_json(
            {
                "directory": path,
                "newest": name,
                "dry_run": dry_run,
                "deleted": delete,
                "later": changing.to_json(later),
                "bytes": changing.size_of(later),
                "folder": None if delete else folder,
            }
        )
    elif not later or not dry_run:
        _explain(path, name, folder, delete, already=not later and folder is None)
    else:
        changing.mention_owner(storage, path)


def _items(storage: Storage, path: str, names: Sequence[str]) -> list[Item]:
    from distckpt.inspection import inventory

    found = {item.name: item for item in inventory.take(storage, path, time.time()).items}
    return [found[name] for name in names if name in found]


def _later(storage: Storage, path: str, name: str) -> tuple[str, ...]:
    """Returns the checkpoints after a checkpoint; refuses if one is pinned or leased."""
    from distckpt.maintenance.rollback_plan import RollbackPlanner

    planner = RollbackPlanner(storage, path, name, time.time())
    later = planner.later()
    planner.check_holds(later)
    return later


def _verify(storage: Storage, path: str, name: str, *, show: bool) -> None:
    problem, _ = verify_all_bytes(storage, path, name, show=show)
    if problem:
        raise CheckpointDamagedError(f"{problem} Nothing was changed.")


def _go_back(storage: Storage, path: str, name: str, delete: bool, take_over: bool) -> str | None:
    """Goes back; returns the folder of the later checkpoints, if there are any."""
    from distckpt.maintenance.exclusive_access import ExclusiveAccess
    from distckpt.maintenance.rollback_plan import RollbackPlanner

    with ExclusiveAccess(storage, path, take_over=take_over) as access:
        rollbacks, folder = access.rollbacks, None
        if access.finished is not None:
            folder = layout.join(path, access.finished.folder)
        planner = RollbackPlanner(storage, path, name, time.time())  # as it is now
        later = planner.later()
        if later:
            planner.check_holds(later)
            folder = rollbacks.run(planner.plan(later, access.ownership.term or 0))
        if folder is not None and delete:
            rollbacks.delete(folder)
    return folder


def _explain(path: str, name: str, folder: str | None, delete: bool, *, already: bool) -> None:
    """Says which checkpoint is the newest, and where the later ones are."""
    click.echo(f"{name} is already the newest." if already else f"{name} is the newest now.")
    if folder is None:
        return
    if delete:
        click.echo("Later checkpoints are deleted.")
        return
    reports.say(f"Later checkpoints are in {folder}, a checkpoint directory of its own.")
    changing.say_how_to_undo(path, folder)


def _ask(name: str, later: Sequence[Item], delete: bool, as_json: bool) -> None:
    changing.check_can_ask(as_json=as_json)
    what = output.plural(len(later), "later checkpoint")
    size = output.size(changing.size_of(later))
    verb = "DELETE" if delete else "set aside"
    changing.ask(f"Go back to {name} and {verb} {what} ({size})?")
