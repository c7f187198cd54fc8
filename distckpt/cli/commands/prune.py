"""``distckpt prune``: applies retention once, by hand."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output
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
@click.option("--yes", is_flag=True, help="Do not ask.")
@changing.take_over_option
def prune_command(
    directory: str,
    max_to_keep: int | None,
    keep: str | None,
    dry_run: bool,
    yes: bool,
    take_over: bool,
) -> None:
    """Delete checkpoints that the rules do not keep.

    Without --max-to-keep and --keep, the rules are those of the job, recorded in the newest
    manifest. The newest checkpoint, the last verified one, pinned and leased ones, and those that
    retention does not manage (`distckpt ls` --json: "listed") are always kept.
    """
    from distckpt.inspection import inventory
    from distckpt.maintenance.exclusive_access import ExclusiveAccess

    storage, path = find_directory(directory)
    found = inventory.take(storage, path, time.time())
    rules = _rules(found, path, max_to_keep, keep)
    victims = {kept.name for kept in _managed(storage, path, rules).decide().victims}
    if not victims:
        click.echo(f"Nothing to delete in {directory}.")
        return
    freed = _show([item for item in found.items if item.name in victims], dry_run)
    if dry_run:
        return
    if not yes:
        _ask(len(victims), freed)
    with ExclusiveAccess(storage, path, take_over=take_over, only_deletes=True) as access:
        managed = _managed(storage, path, rules)  # as it is now, by the rules that were shown
        before = {kept.name for kept in managed.active}
        access.prune(managed)
    gone = before - {kept.name for kept in managed.active}
    click.echo(f"Deleted {len(gone)}, kept {len(managed.active)}.")


def _rules(found: Inventory, path: str, max_to_keep: int | None, keep: str | None) -> Retention:
    """Returns the rules of the command line, or else those of the job."""
    from distckpt.core.manifest import Retention

    rules = Retention(max_to_keep, None, keep or "")
    if max_to_keep is None and keep is None:
        rules = _rules_of_job(found, path)
    if not rules.keep and rules.max_to_keep is None:
        raise ConfigurationError(
            f"The job keeps all checkpoints in {path}. Give --max-to-keep or --keep."
        )
    return rules


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
    manifests = [item.manifest for item in found.items if item.manifest]
    newest = max(manifests, key=lambda m: m.order, default=None)
    if newest is None or newest.retention is None:
        raise ConfigurationError(
            f"No manifest in {path} records what the job keeps. Give --max-to-keep or --keep."
        )
    return newest.retention


def _show(items: Sequence[Item], dry_run: bool) -> int:
    """Shows what is deleted; returns its number of bytes."""
    output.print_table(
        ["", "checkpoint", "step", "size"],
        [
            [
                "would be deleted" if dry_run else "to delete",
                i.name,
                str(i.step),
                output.size(i.bytes),
            ]
            for i in items
        ],
        right="llrr",
    )
    freed = sum(item.bytes for item in items)
    click.echo(f"{output.size(freed)} in {len(items)} checkpoints.")
    return freed


def _ask(count: int, freed: int) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("Cannot ask without a terminal; give --yes or --dry-run.")
    click.confirm(f"Delete {count} checkpoints ({output.size(freed)})?", abort=True)
