"""``distckpt import``: gives a plain TensorFlow checkpoint a manifest."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import click

from distckpt.cli import changing, completion, output, reports
from distckpt.cli.commands.verify import verify_all_bytes
from distckpt.cli.target import Target, find_checkpoint
from distckpt.core import layout
from distckpt.errors import CheckpointDamagedError, ConfigurationError

if TYPE_CHECKING:
    from distckpt.inspection.inventory import Item

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
    newest, later = _newest_and_later(target, manifest.step)
    if as_json:
        of_it = {"step": manifest.step, "tensors": count, "bytes": size, "newest": newest}
        output.print_json({"checkpoint": target.path, **of_it})
    else:
        changing.say_finished(target.directory, access.finished)
        reports.say(
            f"{target.path} is now committed: step {manifest.step}, "
            f"{output.plural(count, 'tensor')}, {output.size(size)}."
        )
    if newest and later is not None:
        verb = "import" if later.manifest is None else "rollback"
        path = f"{target.directory}{'/' if later.manifest is None else ' '}{later.name}"
        reports.warning(
            f"A restore now takes {target.name} first, although its step {manifest.step} is below "
            f"step {_step(later)} of {later.name}. To change that: distckpt {verb} {path}"
        )


def _newest_and_later(target: Target, step: int) -> tuple[bool, Item | None]:
    """Returns whether a restore takes a checkpoint first, and the good one of the last step.

    The second is None if its step is not later than `step`.
    """
    from distckpt.inspection import inventory

    items = inventory.take(target.storage, target.directory, time.time()).items
    is_newest = any(item.newest and item.name == target.name for item in items)
    good = [i for i in items if i.state in (inventory.COMMITTED, inventory.UNMANAGED)]
    last = max(good, key=_step, default=None)
    return is_newest, last if last is not None and _step(last) > step else None


def _step(item: Item) -> int:
    """Returns the step of a checkpoint; without a manifest, the number in its name."""
    return item.step if item.step is not None else layout.split_number(item.name)[1] or 0


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
