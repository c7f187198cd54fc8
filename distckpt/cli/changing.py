"""What the commands share that change a directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

EXPLAINED = """\b
A directory is changed only between jobs. A job that is running is recognised on its own host; on
another one by what it left there, and one that was killed leaves nothing: then say --take-over.
"""


def take_over_option(command: F) -> F:
    """Adds --take-over to a command."""
    return click.option(
        "--take-over",
        is_flag=True,
        help="Go on although the last job may be running. Should it be, it stops at its next save.",
    )(command)


def dry_run_option(command: F) -> F:
    """Adds --dry-run to a command."""
    return click.option(
        "--dry-run", is_flag=True, help="Only show what would be done; change nothing."
    )(command)
