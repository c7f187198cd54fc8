"""``distckpt import``: gives a plain TensorFlow checkpoint a manifest."""

from __future__ import annotations

import functools
import time

import click

from distckpt.cli import changing, completion, output
from distckpt.cli.target import Target, find_checkpoint
from distckpt.cli.verify import verify_all_bytes
from distckpt.errors import ConfigurationError

_EPILOG = f"""\b
Examples:
  distckpt import /checkpoints/run-1/ckpt-120
  distckpt import /checkpoints/run-1/model --step 40000

{changing.EXPLAINED}
{output.CODES}"""


@click.command(
    "import",
    short_help="Verify a plain TensorFlow checkpoint, and give it a manifest.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.option("--step", type=click.IntRange(0), help="Its step. Default: the number in its name.")
@changing.take_over_option
def import_command(checkpoint: str, step: int | None, take_over: bool) -> None:
    """Verify the plain TensorFlow CHECKPOINT, and give it a manifest: then it is committed.

    Its files stay as they are. Among the checkpoints of the directory it is older than all that
    distckpt has saved. From then on damage to it is noticed, and `distckpt show` tells its step.
    """
    from distckpt.roles.adoption import adopt, make_manifest
    from distckpt.roles.caretaker import Caretaker

    target = find_checkpoint(checkpoint)
    time_ = _check_is_plain(target)
    problem = verify_all_bytes(target.storage, target.directory, target.name)
    if problem:
        click.echo(f"Error: {problem} Nothing was changed.", err=True)
        click.get_current_context().exit(output.WRONG)
    read = functools.partial(
        make_manifest,
        target.storage,
        target.directory,
        target.name,
        committed_at=time_,
        step=step,
    )
    with Caretaker(target.storage, target.directory, take_over=take_over) as caretaker:
        manifest = adopt(caretaker, target.storage, target.directory, read)
    click.echo(
        f"{target.path} is committed now: step {manifest.step}, {len(manifest.entries)} tensors, "
        f"{output.size(manifest.bytes)}."
    )


def _check_is_plain(target: Target) -> float:
    """Makes sure that a checkpoint has no manifest; returns when it was saved."""
    from distckpt.roles import inventory

    found = inventory.take(target.storage, target.directory, time.time())
    item = next(item for item in found.items if item.name == target.name)
    if item.manifest is not None:
        raise ConfigurationError(f"{target.path} has a manifest already: nothing to import.")
    if item.problem:
        raise ConfigurationError(f"{target.path} cannot be imported: {item.problem}")
    return time.time() if item.time is None else item.time
