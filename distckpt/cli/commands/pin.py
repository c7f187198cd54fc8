"""``distckpt pin`` and ``distckpt unpin``: protect a checkpoint from deletion, or no longer."""

from __future__ import annotations

import time

import click

from distckpt.cli import completion, output, reports
from distckpt.cli.target import Target, find_checkpoint, find_directory, named, nearest
from distckpt.core import layout
from distckpt.errors import ConfigurationError
from distckpt.runtime import portable

_EPILOG = f"""\b
Examples:
  distckpt pin /checkpoints/run-1/ckpt-120 --reason "submitted"
  distckpt unpin /checkpoints/run-1/ckpt-120

{output.CODES}"""


@click.command(
    "pin", short_help="Protect a checkpoint from deletion.", cls=output.Command, epilog=_EPILOG
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.option("--reason", default="", help="The reason; `distckpt ls --why` shows it.")
@output.json_option
def pin_command(checkpoint: str, reason: str, as_json: bool) -> None:
    """Protect CHECKPOINT (or a directory's newest) from retention until it is unpinned.

    Works at any time, also while a job saves to the directory. A damaged checkpoint is pinned, too,
    if it has its index; then the exit code is 1.
    """
    from distckpt.core.pins_and_leases import Pin
    from distckpt.directory import pinning
    from distckpt.inspection import damage
    from distckpt.runtime import host

    target = find_checkpoint(checkpoint)
    by = f"{portable.user()}@{host.name()}"
    new = pinning.pin(target.storage, target.directory, Pin(target.name, by, time.time(), reason))
    problem = damage.look(*target)
    if as_json:
        output.print_json({**_document(target, pinned=True, changed=new), "problem": problem})
    else:
        reports.say(f"{target.path} is pinned." if new else f"{target.path} was already pinned.")
        if problem:
            reports.damage(target.name, problem)
    output.end(wrong=bool(problem))


@click.command(
    "unpin",
    short_help="Let retention decide on a checkpoint again.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("checkpoint", shell_complete=completion.pinned)
@output.json_option
def unpin_command(checkpoint: str, as_json: bool) -> None:
    """Let retention decide on CHECKPOINT again. It is not deleted before the next save.

    The checkpoint itself need not exist any more.
    """
    from distckpt.directory import pinning

    target = named(checkpoint)
    find_directory(target.directory)
    if not pinning.unpin(target.storage, target.directory, target.name):
        raise ConfigurationError(f"{target.path} is not pinned.{_hint(target)}")
    if as_json:
        output.print_json(_document(target, pinned=False, changed=True))
    else:
        reports.say(f"{target.path} is no longer pinned.")


def _hint(target: Target) -> str:
    """Returns what to say after "… is not pinned."."""
    from distckpt.core.pins_and_leases import Pin
    from distckpt.directory.holds import Holds

    storage, directory, name = target
    if storage.is_directory(target.path):  # the user means a checkpoint in it
        directory, name = target.path, ""
    pins = sorted(h.name for h in Holds(storage, directory).all() if isinstance(h, Pin))
    if not pins:
        return f" Nothing is pinned in {directory}."
    shown = [layout.join(directory, one) for one in pins] if not name else pins
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return nearest(name, pins) or f" Pinned: {', '.join(shown[:10])}{more}."


def _document(target: Target, *, pinned: bool, changed: bool) -> dict[str, object]:
    return {"checkpoint": target.path, "pinned": pinned, "changed": changed}
