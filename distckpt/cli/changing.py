"""What the commands that change a directory share: options, a table of checkpoints, questions."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from distckpt.cli import output, reports, table
from distckpt.core import layout
from distckpt.errors import ConfigurationError

if TYPE_CHECKING:
    from distckpt.core.rollback_record import Rollback
    from distckpt.inspection.inventory import Item
    from distckpt.storage.base import Storage

F = TypeVar("F", bound=Callable[..., Any])

_TAKEN = "  77           stopped: a job has taken over the directory\n"
EXPLAINED = f"""\b
A directory is changed only between jobs. A running job is recognised by its process on its own
host; on other hosts a job counts as running until it records its end. A job that was killed cannot
record it: then give --take-over.
A job that has not saved since it started cannot be recognised: stop it, too.

{output.CODES.replace("  130", f"{_TAKEN}  130")}"""


def take_over_option(command: F) -> F:
    """Adds --take-over to a command."""
    return click.option(
        "--take-over",
        is_flag=True,
        help="Proceed although the last job may be running. If it is, it stops at its next save.",
    )(command)


def dry_run_option(command: F) -> F:
    """Adds --dry-run to a command."""
    return click.option(
        "--dry-run", is_flag=True, help="Only show what would be done; change nothing."
    )(command)


def show(items: Sequence[Item], what: str) -> None:
    """Prints a table of checkpoints; `what` says what is done with them."""
    table.print_table(
        ["", "checkpoint", "step", "size"],
        [
            [what, i.name, "-" if i.step is None else str(i.step), output.size(i.bytes)]
            for i in items
        ],
        right="llrr",
    )
    click.echo(f"{output.size(size_of(items))} in {output.plural(len(items), 'checkpoint')}.")


def size_of(items: Sequence[Item]) -> int:
    """Returns the number of bytes of some checkpoints."""
    return sum(item.bytes for item in items)


def to_json(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Returns what ``--json`` prints about checkpoints that are removed."""
    return [{"name": item.name, "step": item.step, "bytes": item.bytes} for item in items]


def check_not_in_use(storage: Storage, directory: str, *, take_over: bool) -> None:
    """Refuses if a job may be running, before a long check or a question. Never writes.

    The command checks again when it takes the directory.
    """
    from distckpt.maintenance import exclusive_access

    exclusive_access.check_not_in_use(storage, directory, take_over=take_over)


def mention_owner(storage: Storage, directory: str) -> None:
    """Says after a dry run that a job may be running, so the command itself would refuse."""
    from distckpt.maintenance.exclusive_access import in_use
    from distckpt.ownership import owner_record

    owner = owner_record.find(storage, directory)
    if owner is not None and owner.may_run:
        reports.say(in_use(directory, owner))


def say_finished(directory: str, what: Rollback | None) -> None:
    """Says what an unfinished rollback, which this command has finished, has moved where."""
    if what is None:
        return
    folder = layout.join(directory, what.folder)
    names = ", ".join(what.names)
    reports.say(f"Finished an interrupted rollback to {what.to}: {names} moved to {folder}.")
    say_how_to_undo(directory, folder)


def say_how_to_undo(directory: str, folder: str) -> None:
    """Says how to move back what a rollback has moved to `folder`."""
    if "://" in directory:
        click.echo("To undo that, before anything is saved here, move its files back.")
        return
    here, there = shlex.quote(directory), shlex.quote(folder)
    click.echo("To undo that, before anything is saved here:")
    reports.say(f"  mv {there}/* {here}/ && rmdir {there}")


def check_can_ask(*, as_json: bool) -> None:
    """Checks that a person can be asked. Raises ConfigurationError if not."""
    if as_json or not sys.stdin.isatty():
        where = "with --json" if as_json else "without a terminal"
        raise ConfigurationError(f"Cannot ask {where}; give --yes or --dry-run.")


def ask(question: str) -> None:
    """Asks a person; ends the command if the answer is not yes."""
    if not click.confirm(question):
        click.echo("Nothing was changed.")
        click.get_current_context().exit(output.REFUSED)
