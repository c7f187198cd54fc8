"""Options and help texts shared by the commands that change a directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

EXPLAINED = """\b
A directory is changed only between jobs. A running job is recognised by its process on its own
host; on other hosts a job counts as running until it records its end. A job that was killed cannot
record it: then give --take-over.
A job that has not saved since it started cannot be recognised: stop it, too.
"""


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
