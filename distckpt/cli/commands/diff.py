"""``distckpt diff``: compares two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distckpt.cli import completion, output, reports, table
from distckpt.cli.commands.show import open_tensors
from distckpt.cli.target import Target, find_checkpoint
from distckpt.core import layout

if TYPE_CHECKING:
    from distckpt.inspection.diff import Difference
    from distckpt.reading.tensors import Tensor, Tensors

_EPILOG = """\b
Examples:
  distckpt diff /checkpoints/run-1/ckpt-110 /checkpoints/run-1/ckpt-120
  distckpt diff /old/ckpt-9 /new/ckpt-9 --most 10 --json

\b
Exit codes:
  0            the tensors are the same, bit for bit
  1            tensors differ, or a checkpoint is damaged
  2            not done: wrong usage, no such checkpoint, no rights
  130          interrupted (Ctrl-C)
"""


@click.command(
    "diff", short_help="Compare the tensors of two checkpoints.", cls=output.Command, epilog=_EPILOG
)
@click.argument("first", shell_complete=completion.checkpoints)
@click.argument("second", shell_complete=completion.checkpoints)
@click.option("--most", type=click.IntRange(0), metavar="N", help="Show at most N differences.")
@output.json_option
def diff_command(first: str, second: str, most: int | None, as_json: bool) -> None:
    """Compare the tensors of the checkpoints FIRST and SECOND.

    Tensors in only one checkpoint, or of different types or shapes, come first; then changed
    tensors, sorted by the norm of the change relative to the norm of the old value. How a tensor is
    divided between files and workers does not matter. Tensors with equal checksums are not read, so
    bytes that have changed on the disk are not noticed: `distckpt verify` finds them. What is
    damaged is compared by the checksums in its index.
    """
    from distckpt.inspection import damage, diff

    targets = [find_checkpoint(first), find_checkpoint(second)]
    found = list(diff.compare(*map(_open, targets)))
    unlike = sorted((d for d in found if d.kind != diff.SAME), key=diff.by_size)
    problems = {t.path: problem for t in targets if (problem := damage.look(*t))}
    for target in targets:
        unread = [d.problem for d in found if d.problem.startswith(f"{target.path}.")]
        if unread:
            problems.setdefault(target.path, unread[0])
    shown = unlike if most is None else unlike[:most]
    wrong = bool(unlike or problems)
    if as_json:
        output.print_json(
            {
                "first": targets[0].path,
                "second": targets[1].path,
                "same": len(found) - len(unlike),
                "different": len(unlike),
                "differences": [difference.to_json() for difference in shown],
                "problems": problems,
            }
        )
    else:
        _print(shown, len(unlike), len(found) - len(unlike))
        for target in dict.fromkeys(targets):
            if target.path in problems:
                reports.damage(target.path, problems.pop(target.path))
            elif not _has_manifest(target):
                reports.say(f"{target.path} has no manifest: its index was compared.")
    output.end(wrong=wrong)


def _open(target: Target) -> Tensors:
    """Returns the tensors of a checkpoint; by its index alone if its manifest is damaged."""
    from distckpt.errors import CheckpointDamagedError
    from distckpt.reading.tensors import Tensors
    from distckpt.storage.retrying_reader import RetryingReader

    try:
        return open_tensors(target)
    except CheckpointDamagedError:
        storage, directory, name = target
        return Tensors(RetryingReader(storage), directory, name, trusts_index=True)


def _has_manifest(target: Target) -> bool:
    return target.storage.exists(layout.join(target.directory, layout.manifest_name(target.name)))


def _print(shown: list[Difference], different: int, same: int) -> None:
    if shown:
        table.print_table(
            ["tensor", "largest", "norm", "relative", "what"],
            [
                [_key(d), _number(d.largest), _number(d.norm), _number(d.relative), _what(d)]
                for d in shown
            ],
            right="lrrrl",
            hide=("norm", "largest", "relative"),
        )
    if different > len(shown):
        click.echo(f"... and {different - len(shown)} more")
    click.echo(f"{different} different, {same} the same")


def _key(difference: Difference) -> str:
    tensor = difference.left or difference.right
    assert tensor is not None
    return tensor.short_key


def _what(difference: Difference) -> str:
    from distckpt.inspection.diff import CHANGED, OTHER_KIND

    if difference.problem and difference.kind == CHANGED:
        return "changed, by the checksums"
    if difference.kind != OTHER_KIND:
        return difference.kind
    assert difference.left is not None
    assert difference.right is not None
    return f"{_type(difference.left)}, then {_type(difference.right)}"


def _type(tensor: Tensor) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
