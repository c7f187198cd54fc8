"""``distckpt prune``: applies retention once, by hand."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output, prune_plan, reports, table
from distckpt.cli.commands.verify import verify_all_bytes
from distckpt.cli.target import find_directory, nothing_in
from distckpt.errors import CheckpointDamagedError, ConfigurationError

if TYPE_CHECKING:
    from distckpt.core.rollback_record import Rollback
    from distckpt.inspection.inventory import Item
    from distckpt.storage.base import Storage

_EPILOG = f"""\b
Examples:
  distckpt prune /checkpoints/run-1 --dry-run
  distckpt prune /checkpoints/run-1 --max-to-keep 2 --verify
  distckpt prune /checkpoints/run-1 --max-to-keep 2 --yes
  distckpt prune /checkpoints/run-1 --keep "EverySteps(1000) | Best(3, 'val_loss')" --dry-run

{changing.EXPLAINED}"""


@click.command(
    "prune",
    short_help="Delete checkpoints that the rules do not keep.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", default=".", shell_complete=completion.directories)
@click.option("--max-to-keep", type=click.IntRange(1), metavar="N", help="Keep the N newest.")
@click.option(
    "--keep",
    metavar="POLICY",
    help="Also keep what this policy of distckpt.keep keeps.",
)
@click.option(
    "--verify", "verifies", is_flag=True, help="First read every byte of what the rules keep."
)
@changing.dry_run_option
@click.option("--yes", is_flag=True, help="Do not ask, unless more than half would be deleted.")
@click.option("--force", is_flag=True, help="With --yes: do not ask in any case.")
@changing.take_over_option
@output.json_option
def prune_command(
    directory: str,
    max_to_keep: int | None,
    keep: str | None,
    verifies: bool,
    dry_run: bool,
    yes: bool,
    force: bool,
    take_over: bool,
    as_json: bool,
) -> None:
    """Delete checkpoints that the rules do not keep.

    Without --max-to-keep and --keep, the rules are those of the job, recorded in the newest
    manifest. With --keep alone, the job's own max_to_keep applies, too. The newest checkpoint, the
    last verified one, pinned and leased ones, and those that retention does not manage (`distckpt
    ls` --json: "listed") are always kept. If a checkpoint that would be kept lacks bytes, nothing
    is deleted. Only --verify finds changed bytes; without it, the deleted checkpoints may be the
    only good ones.
    """
    from distckpt.inspection import inventory

    storage, path = find_directory(directory)
    found = inventory.take(storage, path, time.time())
    if not found.items and not as_json:
        click.echo(nothing_in(storage, path, directory))
        return
    plan = prune_plan.make(storage, path, found, max_to_keep, keep)
    if plan.victims and not dry_run:
        changing.check_not_in_use(storage, path, take_over=take_over)
    verified = _verify(storage, path, plan, show=not as_json) if verifies and plan.victims else []
    if not as_json:
        if keep is not None and max_to_keep is None and plan.rules.max_to_keep is not None:
            most = f"max_to_keep={plan.rules.max_to_keep}"
            click.echo(f"The job's {most} applies, too; see --max-to-keep.")
        _show(plan, directory, dry_run=dry_run, verified=len(verified))
    gone: Collection[str] = plan.victims
    if plan.victims and not dry_run:
        listed = sum(item.listed for item in found.items)
        _ask(plan.deleted, listed, yes=yes, force=force, as_json=as_json)
        gone, rollback = _delete(storage, path, plan, take_over)
        if not as_json:
            changing.say_finished(path, rollback)
    elif plan.victims and not as_json:
        changing.mention_owner(storage, path)
    _finish(path, plan, gone, verified, dry_run=dry_run, as_json=as_json)


def _verify(storage: Storage, path: str, plan: prune_plan.Plan, *, show: bool) -> list[str]:
    """Reads every byte of the checkpoints that are kept and counted; returns their names."""
    for item in plan.counted:
        problem, _ = verify_all_bytes(storage, path, item.name, show=show)
        if problem:
            raise CheckpointDamagedError(prune_plan.refusal(item.name, problem))
    return [item.name for item in plan.counted]


def _delete(
    storage: Storage, path: str, plan: prune_plan.Plan, take_over: bool
) -> tuple[set[str], Rollback | None]:
    """Deletes what the rules do not keep.

    Returns:
      The names of what is gone, and the interrupted rollback that was finished before, if any.
    """
    from distckpt.inspection import inventory
    from distckpt.maintenance.exclusive_access import ExclusiveAccess

    with ExclusiveAccess(storage, path, take_over=take_over, only_deletes=True) as access:
        found = inventory.take(storage, path, time.time())
        now = prune_plan.by(storage, path, found, plan.rules)
        if not now.victims <= plan.victims:  # only what was shown may be deleted
            raise ConfigurationError(
                f"{path} has changed meanwhile: nothing was deleted. Repeat the command."
            )
        before = {kept.name for kept in now.managed.active}
        access.prune(now.managed)
    return before - {kept.name for kept in now.managed.active}, access.finished


def _show(plan: prune_plan.Plan, directory: str, *, dry_run: bool, verified: int) -> None:
    """Shows what is kept and deleted, by which rule, and what was checked."""
    if not plan.victims:
        click.echo(f"Nothing to delete in {directory}.")
        return
    deleted = "would be deleted" if dry_run else "to delete"
    table.print_table(
        ["", "checkpoint", "step", "size", "why"],
        [
            [
                deleted if item.name in plan.victims else "kept",
                item.name,
                "-" if item.step is None else str(item.step),
                output.size(item.bytes),
                plan.why[item.name],
            ]
            for item in plan.found.items
        ],
        right="llrrl",
        hide=("size",),
    )
    count, size = len(plan.victims), output.size(changing.size_of(plan.deleted))
    click.echo(f"{size} in {output.plural(count, 'checkpoint')} {deleted}.")
    if verified:
        what = output.plural(verified, "checkpoint")
        click.echo(f"Every byte of {what} that the rules keep was verified.")
    else:
        click.echo(
            "Of the checkpoints that are kept, only the sizes and indexes were checked; "
            f"`distckpt verify {directory} --all` or --verify checks their bytes."
        )


def _finish(
    path: str,
    plan: prune_plan.Plan,
    gone: Collection[str],
    verified: list[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Says what was deleted, and what is damaged, and ends the command."""
    from distckpt.inspection import keep_reasons

    deleted = [item for item in plan.found.items if item.name in gone]
    kept = [item for item in plan.found.items if item.name not in gone]
    damaged = reports.damaged(kept)
    if as_json:
        output.print_json(
            {
                "directory": path,
                "dry_run": dry_run,
                "rules": keep_reasons.describe(plan.rules),
                "deleted": changing.to_json(deleted),
                "bytes": changing.size_of(deleted),
                "kept": [item.name for item in kept],
                "why": plan.why,
                "verified": verified,
                "damaged": reports.damage_to_json(damaged),
            }
        )
    else:
        if deleted and not dry_run:
            click.echo(f"Deleted {len(deleted)}, kept {len(kept)}.")
        for item in damaged:
            reports.damage(item.name, item.problem)
    output.end(wrong=bool(damaged))


def _ask(items: Sequence[Item], of: int, *, yes: bool, force: bool, as_json: bool) -> None:
    """Asks before anything is deleted, and once more before most of it is."""
    count = len(items)
    is_most = 2 * count > of
    if yes and (force or not is_most):
        return
    if yes and (as_json or not sys.stdin.isatty()):
        raise ConfigurationError(
            f"These are {count} of {output.plural(of, 'checkpoint')}, more than half. If that is "
            "meant, give --yes --force; nothing was deleted."
        )
    changing.check_can_ask(as_json=as_json)
    if not yes:
        what = output.plural(count, "checkpoint")
        changing.ask(f"Delete {what} ({output.size(changing.size_of(items))})?")
    if is_most and not force:
        changing.ask(f"These are {count} of {of}, more than half. Delete them?")
