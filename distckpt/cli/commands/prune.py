"""``distckpt prune``: applies retention once, by hand."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output, table
from distckpt.cli.target import find_directory
from distckpt.errors import ConfigurationError

if TYPE_CHECKING:
    from distckpt.core.manifest import Retention
    from distckpt.directory.managed_checkpoints import ManagedCheckpoints
    from distckpt.inspection.inventory import Inventory, Item
    from distckpt.storage.base import Storage

_EPILOG = f"""\b
Examples:
  distckpt prune /checkpoints/run-1 --dry-run
  distckpt prune /checkpoints/run-1 --max-to-keep 2 --yes
  distckpt prune /checkpoints/run-1 --keep "EverySteps(1000) | Best(3, 'val_loss')" --dry-run

{changing.EXPLAINED}
{output.CODES}"""


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
@changing.dry_run_option
@click.option("--yes", is_flag=True, help="Do not ask, unless more than half would be deleted.")
@click.option("--force", is_flag=True, help="With --yes: do not ask in any case.")
@changing.take_over_option
def prune_command(
    directory: str,
    max_to_keep: int | None,
    keep: str | None,
    dry_run: bool,
    yes: bool,
    force: bool,
    take_over: bool,
) -> None:
    """Delete checkpoints that the rules do not keep.

    Without --max-to-keep and --keep, the rules are those of the job, recorded in the newest
    manifest. With --keep alone, the job's own max_to_keep applies, too. The newest checkpoint, the
    last verified one, pinned and leased ones, and those that retention does not manage (`distckpt
    ls` --json: "listed") are always kept.
    """
    from distckpt.inspection import inventory
    from distckpt.maintenance.exclusive_access import ExclusiveAccess

    storage, path = find_directory(directory)
    found = inventory.take(storage, path, time.time())
    rules = _rules(found, path, max_to_keep, keep)
    _check_metrics(found, rules.keep)
    victims = {kept.name for kept in _managed(storage, path, rules).decide().victims}
    if not victims:
        click.echo(f"Nothing to delete in {directory}.")
        return
    freed = _show([item for item in found.items if item.name in victims], dry_run)
    if dry_run:
        return
    _ask(len(victims), _listed(found), freed, yes=yes, force=force)
    with ExclusiveAccess(storage, path, take_over=take_over, only_deletes=True) as access:
        managed = _managed(storage, path, rules)  # as it is now, by the rules that were shown
        before = {kept.name for kept in managed.active}
        access.prune(managed)
    gone = before - {kept.name for kept in managed.active}
    click.echo(f"Deleted {len(gone)}, kept {len(managed.active)}.")


def _rules(found: Inventory, path: str, max_to_keep: int | None, keep: str | None) -> Retention:
    """Returns the rules of the command line, or else those of the job."""
    from distckpt.core.manifest import Retention

    if keep is None and max_to_keep is None:
        rules = _rules_of_job(found, path)
    else:
        if keep is not None and max_to_keep is None:
            max_to_keep = _max_to_keep_of_job(found)
        rules = Retention(max_to_keep, None, keep or "")
    if not rules.keep and rules.max_to_keep is None:
        raise ConfigurationError(
            f"The job keeps all checkpoints in {path}. Give --max-to-keep or --keep."
        )
    return rules


def _check_metrics(found: Inventory, keep: str) -> None:
    from distckpt.keep import Checkpoint, check_metrics, parse

    if keep:
        manifests = [item.manifest for item in found.items if item.manifest and item.listed]
        checkpoints = [
            Checkpoint(name=m.name, time=m.committed_at, metrics=m.metrics) for m in manifests
        ]
        check_metrics(parse(keep), checkpoints)


def _managed(storage: Storage, path: str, rules: Retention) -> ManagedCheckpoints:
    """Returns the managed checkpoints, with the rules to apply to them."""
    from distckpt.directory.managed_checkpoints import ManagedCheckpoints
    from distckpt.keep import KeepPolicy, LastVerified, parse

    policy: KeepPolicy = LastVerified()
    if rules.keep:
        policy = parse(rules.keep) | policy
    return ManagedCheckpoints(
        storage, path, rules.max_to_keep, rules.every_hours, durable=True, keep=policy
    )


def _rules_of_job(found: Inventory, path: str) -> Retention:
    rules = _recorded(found)
    if rules is None:
        raise ConfigurationError(
            f"No manifest in {path} records what the job keeps. Give --max-to-keep or --keep."
        )
    return rules


def _recorded(found: Inventory) -> Retention | None:
    manifests = [item.manifest for item in found.items if item.manifest]
    newest = max(manifests, key=lambda m: m.order, default=None)
    return newest.retention if newest else None


def _max_to_keep_of_job(found: Inventory) -> int | None:
    rules = _recorded(found)
    if rules is None or rules.max_to_keep is None:
        return None
    click.echo(f"The job's max_to_keep={rules.max_to_keep} applies, too; see --max-to-keep.")
    return rules.max_to_keep


def _show(items: Sequence[Item], dry_run: bool) -> int:
    """Shows what is deleted; returns its number of bytes."""
    table.print_table(
        ["", "checkpoint", "step", "size"],
        [
            [
                "would be deleted" if dry_run else "to delete",
                i.name,
                "-" if i.step is None else str(i.step),
                output.size(i.bytes),
            ]
            for i in items
        ],
        right="llrr",
    )
    freed = sum(item.bytes for item in items)
    click.echo(f"{output.size(freed)} in {output.plural(len(items), 'checkpoint')}.")
    return freed


def _listed(found: Inventory) -> int:
    return sum(item.listed for item in found.items)


def _ask(count: int, of: int, freed: int, *, yes: bool, force: bool) -> None:
    """Asks before anything is deleted, and once more before most of it is."""
    is_most = 2 * count > of
    if yes and (force or not is_most):
        return
    if not sys.stdin.isatty():
        if yes:
            raise ConfigurationError(
                f"These are {count} of {of} checkpoints, more than half. If that is meant, give "
                "--yes --force; nothing was deleted."
            )
        raise ConfigurationError("Cannot ask without a terminal; give --yes or --dry-run.")
    if not yes:
        what = output.plural(count, "checkpoint")
        click.confirm(f"Delete {what} ({output.size(freed)})?", abort=True)
    if is_most and not force:
        click.confirm(f"These are {count} of {of}, more than half. Delete them?", abort=True)
