"""``distckpt import``: gives a plain TensorFlow checkpoint a manifest."""

from __future__ import annotations

import functools
import time

import click

from distckpt.cli import changing, completion, output
from distckpt.cli.commands.verify import verify_all_bytes
from distckpt.cli.target import Target, find_checkpoint
from distckpt.errors import CheckpointDamagedError, ConfigurationError

_EPILOG = f"""\b
Examples:
  distckpt import /checkpoints/run-1/ckpt-120
  distckpt import /checkpoints/run-1/model --step 40000

{changing.EXPLAINED}"""


@click.command(
    "import",
    short_help="Verify a plain TensorFlow checkpoint and give it a manifest.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.option("--step", type=click.IntRange(0), help="Its step. Default: the number in its name.")
@changing.take_over_option
@output.json_option
def import_command(checkpoint: str, step: int | None, take_over: bool, as_json: bool) -> None:
    """Verify the plain TensorFlow CHECKPOINT and give it a manifest, which commits it.

    Its files are not changed. In the directory it counts as older than all checkpoints saved by
    distckpt. From then on, damage to it is detected and `distckpt show` shows its step.
    """
    from distckpt.maintenance.exclusive_access import ExclusiveAccess
    from distckpt.maintenance.import_checkpoint import adopt, make_manifest

    target = find_checkpoint(checkpoint)
    time_ = _check_is_plain(target)
    problem, _ = verify_all_bytes(*target, show=not as_json)
    if problem:
        raise CheckpointDamagedError(f"{problem} Nothing was changed.")
    read = functools.partial(
        make_manifest,
        target.storage,
        target.directory,
        target.name,
        committed_at=time_,
        step=step,
    )
    with ExclusiveAccess(target.storage, target.directory, take_over=take_over) as access:
        manifest = adopt(access, target.storage, target.directory, read)
    count, size = len(manifest.entries), manifest.bytes
    if as_json:
        of_it = {"step": manifest.step, "tensors": count, "bytes": size}
        output.print_json({"checkpoint": target.path, **of_it})
    else:
        click.echo(
            f"{target.path} is now committed: step {manifest.step}, "
            f"{output.plural(count, 'tensor')}, {output.size(size)}."
        )


def _check_is_plain(target: Target) -> float:
    """Checks that a checkpoint has no manifest; returns the time of its save."""
    from distckpt.inspection import inventory

    found = inventory.take(target.storage, target.directory, time.time())
    item = next(item for item in found.items if item.name == target.name)
    if item.state == inventory.DAMAGED:
        raise CheckpointDamagedError(f"{target.path} cannot be imported: {item.problem}")
    if item.manifest is not None:
        raise ConfigurationError(f"{target.path} already has a manifest: nothing to import.")
    if item.problem:
        raise ConfigurationError(f"{target.path} cannot be imported: {item.problem}")
    return time.time() if item.time is None else item.time
