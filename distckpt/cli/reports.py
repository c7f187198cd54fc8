"""Reports damaged checkpoints, errors, and the library's warnings: each sentence only once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from distckpt.cli import shown_paths

if TYPE_CHECKING:
    from distckpt.inspection.inventory import Item

NOTHING_TO_RESTORE = (
    "No checkpoint can be restored: a job that starts here ends with an error until that is mended."
)
_said: list[str] = []


@contextlib.contextmanager
def warnings_at_the_end() -> Iterator[None]:
    """Collects the warnings of the library, and prints those that say something new."""
    _said.clear()
    shown_paths.forget()
    handler = _Collector()
    logger = logging.getLogger("distckpt")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for text in handler.texts:
            if not any(one in text for one in _said):
                warning(text)


def say(text: str, *, err: bool = False) -> None:
    """Prints a text, with paths as the user has given them."""
    click.echo(shown_paths.shown(text), err=err)


def error(text: str) -> None:
    """Prints the error that ends a command."""
    _said.append(text)
    say(f"Error: {text}", err=True)


def warning(text: str) -> None:
    """Prints a warning."""
    _said.append(text)
    say(f"Warning: {text}", err=True)


def damage(name: str, problem: str) -> None:
    """Prints what is wrong with a checkpoint."""
    _said.append(problem)
    say(f"{name} is damaged: {problem}")


def damaged(items: Sequence[Item]) -> list[Item]:
    """Returns the damaged ones of some checkpoints."""
    from distckpt.inspection.inventory import DAMAGED

    return [item for item in items if item.state == DAMAGED]


def damage_to_json(items: Sequence[Item]) -> list[dict[str, str]]:
    """Returns what the commands print about damaged checkpoints with ``--json``."""
    return [{"name": item.name, "problem": item.problem} for item in items]


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
