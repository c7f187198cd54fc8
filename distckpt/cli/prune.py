"""``distckpt prune``: deletes what retention gives up, once, by hand."""

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
    from distckpt.roles.books import Books
    from distckpt.roles.inventory import Inventory, Item
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
    help="Also keep what this says: a policy of distckpt.keep, as a text.",
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

    Without --max-to-keep and --keep the rules are those of the job, as the newest manifest says
    them. Never deleted are the newest, the last that was verified, what is pinned or leased, and
    what retention does not manage (`distckpt ls` --json: "listed").
    """
    from distckpt.roles import inventory
    from distckpt.roles.caretaker import Caretaker

    storage, path = find_directory(directory)
    found = inventory.take(storage, path, time.time())
    rules = _rules(found, path, max_to_keep, keep)
    victims = {kept.name for kept in _books(storage, path, rules).decide().victims}
    if not victims:
        click.echo(f"Nothing to delete in {directory}.")
        return
    freed = _show([item for item in found.items if item.name in victims], dry_run)
    if dry_run:
        return
    if not yes:
        _ask(len(victims), freed)
    with Caretaker(storage, path, take_over=take_over) as caretaker:
        books = _books(storage, path, rules)  # as it is now, by the rules that were shown
        before = {kept.name for kept in books.active}
        caretaker.prune(books)
    gone = before - {kept.name for kept in books.active}
    click.echo(f"Deleted {len(gone)}, {len(books.active)} stay.")


def _rules(found: Inventory, path: str, max_to_keep: int | None, keep: str | None) -> Retention:
    """Returns what to keep: as the command line says, or the job."""
    from distckpt.core.manifest import Retention

    rules = Retention(max_to_keep, None, keep or "")
    if max_to_keep is None and keep is None:
        rules = _rules_of_job(found, path)
    if not rules.keep and rules.max_to_keep is None:
        raise ConfigurationError(
            f"The job keeps all checkpoints in {path}. Say what to keep: --max-to-keep, --keep."
        )
    return rules


def _books(storage: Storage, path: str, rules: Retention) -> Books:
    """Returns the list of checkpoints, with the rules to apply to it."""
    from distckpt.keep import KeepPolicy, LastVerified, parse
    from distckpt.roles.books import Books

    policy: KeepPolicy = LastVerified()
    if rules.keep:
        policy = parse(rules.keep) | policy
    return Books(storage, path, rules.max_to_keep, rules.every_hours, durable=True, keep=policy)


def _rules_of_job(found: Inventory, path: str) -> Retention:
    manifests = [item.manifest for item in found.items if item.manifest]
    newest = max(manifests, key=lambda m: m.order, default=None)
    if newest is None or newest.retention is None:
        raise ConfigurationError(
            f"No manifest in {path} says what the job keeps. Say it: --max-to-keep, --keep."
        )
    return newest.retention


def _show(items: Sequence[Item], dry_run: bool) -> int:
    """Shows what goes; returns how many bytes that is."""
    output.print_table(
        ["", "checkpoint", "step", "size"],
        [
            ["would go" if dry_run else "goes", i.name, str(i.step), output.size(i.bytes)]
            for i in items
        ],
        right="llrr",
    )
    freed = sum(item.bytes for item in items)
    click.echo(f"{output.size(freed)} in {len(items)} checkpoints.")
    return freed


def _ask(count: int, freed: int) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("Nobody is there to be asked; say --yes, or --dry-run.")
    click.confirm(f"Delete {count} checkpoints ({output.size(freed)})?", abort=True)
