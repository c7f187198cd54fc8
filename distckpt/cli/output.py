"""Output shared by the commands on directories: JSON, progress, and exit codes for errors.

0    done; nothing is wrong
1    done, and something is wrong or different: a damaged checkpoint, a failed check
2    not done: wrong usage, no such checkpoint or directory, no rights
130  interrupted (Ctrl-C); nothing is half done
141  the reader of the output has ended (`| head`)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from distckpt import exit_codes
from distckpt.cli import reports
from distckpt.core.units import age as age
from distckpt.core.units import duration as duration
from distckpt.core.units import json_number as json_number
from distckpt.core.units import size as size
from distckpt.errors import CheckpointDamagedError, DistckptError, explain
from distckpt.runtime import tf_version

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])

FINE = 0
WRONG = 1
REFUSED = 2
INTERRUPTED = 130
PIPE_CLOSED = 141

CODES = """\b
Exit codes:
  0            done, and all is well
  1            done, and something is wrong or different
  2            not done: wrong usage, no such checkpoint or directory, no rights
  130          interrupted (Ctrl-C)
"""
# The width of tables when the output is not a terminal.
_NO_LIMIT = 100_000


class Command(click.Command):
    """A command that reports an error on one line and exits with a code of the list above."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command and flushes its output."""
        with reports.warnings_at_the_end():
            try:
                result = super().invoke(ctx)
                sys.stdout.flush()  # raises for a closed pipe here, not while Python ends
            except (KeyboardInterrupt, click.Abort, DistckptError, OSError) as error:
                ctx.exit(_end(error))
            except ModuleNotFoundError as error:
                if not tf_version.is_missing(error):
                    raise
                reports.error(tf_version.missing())
                ctx.exit(REFUSED)
        return result


def _end(error: BaseException) -> int:
    """Reports the error that ended a command, and returns its exit code."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    if isinstance(error, DistckptError):
        reports.error(str(error))
        return code_of(error)
    assert isinstance(error, OSError)
    if error.errno == errno.EPIPE:
        _forget_stdout()
        return PIPE_CLOSED
    reports.error(f"{explain(error)}.")
    return REFUSED


def code_of(error: DistckptError) -> int:
    """Returns the exit code for an error of distckpt."""
    if isinstance(error, CheckpointDamagedError):
        return WRONG
    code = exit_codes.of(error)
    return code if code == exit_codes.SUPERSEDED else REFUSED


def json_option(command: F) -> F:
    """Adds --json to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def json_lines_option(command: F) -> F:
    """Adds --json to a command that prints one line after the other."""
    what = "Print a JSON document on each line."
    return click.option("--json", "as_json", is_flag=True, help=what)(command)


def end(*, wrong: bool) -> None:
    """Ends a command that has done its work; `wrong`: and has found something damaged."""
    click.get_current_context().exit(WRONG if wrong else FINE)


def plural(count: int, noun: str) -> str:
    """Returns e.g. "1 checkpoint" or "2 checkpoints"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def print_json(value: Any) -> None:
    """Prints a value as one JSON document."""
    click.echo(json.dumps(value, indent=1, allow_nan=False))


def make_console(*, stderr: bool = False) -> Console:
    """Returns a console for rich, without a width limit if it is not a terminal."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=_NO_LIMIT)
    return console


@contextlib.contextmanager
def progress(*, show: bool) -> Iterator[Progress | None]:
    """Yields rich's progress bars for bytes on standard error, or None without a terminal."""
    console = make_console(stderr=True)
    if not show or not console.is_terminal:
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield bars


def _forget_stdout() -> None:
    """Discards the rest of the output, so that Python ends without another error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        return  # a test's substitute for stdout, which has no descriptor
    finally:
        os.close(nowhere)
