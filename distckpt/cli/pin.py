"""``distckpt pin`` and ``distckpt unpin``: keep a checkpoint from being deleted, or no longer."""

from __future__ import annotations

import time

import click

from distckpt import portable
from distckpt.cli import completion, output
from distckpt.cli.target import find_checkpoint, named, nearest
from distckpt.errors import ConfigurationError

_EPILOG = f"""\b
Examples:
  distckpt pin /checkpoints/run-1/ckpt-120 --reason "submitted"
  distckpt unpin /checkpoints/run-1/ckpt-120

{output.CODES}"""


@click.command(
    "pin", short_help="Keep a checkpoint from being deleted.", cls=output.Command, epilog=_EPILOG
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.option("--reason", default="", help="What for; `distckpt ls --why` shows it.")
def pin_command(checkpoint: str, reason: str) -> None:
    """Keep CHECKPOINT (or a directory's newest): no retention deletes it, until it is unpinned.

    May be done at any time, also while a job saves to the directory.
    """
    from distckpt.core.holds import Pin
    from distckpt.roles import holding, host

    target = find_checkpoint(checkpoint)
    by = f"{portable.user()}@{host.name()}"
    new = holding.pin(target.storage, target.directory, Pin(target.name, by, time.time(), reason))
    click.echo(f"{target.path} is pinned." if new else f"{target.path} was pinned already.")


@click.command(
    "unpin",
    short_help="Let retention decide on a checkpoint again.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("checkpoint", shell_complete=completion.pinned)
def unpin_command(checkpoint: str) -> None:
    """Let retention decide on CHECKPOINT again. It is not deleted before the next save.

    The checkpoint itself may be gone already.
    """
    from distckpt.roles import holding
    from distckpt.roles.holds import Holds

    target = named(checkpoint)
    if not holding.unpin(target.storage, target.directory, target.name):
        pins = [hold.name for hold in Holds(target.storage, target.directory).all()]
        raise ConfigurationError(f"{target.path} is not pinned.{nearest(target.name, pins)}")
    click.echo(f"{target.path} is pinned no more.")
