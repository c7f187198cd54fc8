"""``distckpt export``: writes a checkpoint in another form."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from distckpt.cli import completion, output, reports, shown_paths
from distckpt.cli.commands.show import choose, open_tensors
from distckpt.cli.target import find_checkpoint, is_in_use
from distckpt.errors import ConfigurationError
from distckpt.runtime import portable
from distckpt.storage.local import LocalStorage

if TYPE_CHECKING:
    from distckpt.reading.tensors import Tensor

_EPILOG = f"""\b
Examples:
  distckpt export /checkpoints/run-1 model/best
  distckpt export /checkpoints/run-1/ckpt-120 model.npz --filter 'model/*'
  distckpt export /checkpoints/run-1/ckpt-120 model.safetensors

{output.CODES}"""


@click.command(
    "export",
    short_help="Write a checkpoint as plain TensorFlow, npz or safetensors.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("checkpoint", shell_complete=completion.checkpoints)
@click.argument("out")
@click.option(
    "--to",
    "form",
    type=click.Choice(["plain", "npz", "safetensors"]),
    help="plain: a TensorFlow checkpoint with one data file. Default: by the suffix of OUT (.npz, "
    ".safetensors), else plain.",
)
@click.option("--filter", "pattern", metavar="GLOB", help="Only tensors whose keys match.")
@click.option("--force", is_flag=True, help="Replace an existing OUT.")
@output.json_option
def export_command(
    checkpoint: str, out: str, form: str | None, pattern: str | None, force: bool, as_json: bool
) -> None:
    """Write CHECKPOINT (or a directory's newest) to OUT, for other programs.

    CHECKPOINT is not changed, and every byte is verified. OUT appears only when it is complete;
    after an error or Ctrl-C nothing of it remains. npz and safetensors cannot hold strings:
    string tensors, such as TensorFlow's object graph, are omitted. In both formats, bfloat16 and
    float8 become float32, which is exact; safetensors needs as much memory as the tensors.
    """
    from distckpt.inspection import export

    target = find_checkpoint(checkpoint)
    tensors = open_tensors(target)
    chosen = choose(tensors, pattern)
    if not chosen:
        raise ConfigurationError(f"No tensor of {target.path} matches {pattern!r}.")
    form = form or _form_of(out)
    path = portable.absolute(out)
    shown_paths.remember(path, out)
    _refuse_directory_in_use(path)
    total = sum(tensor.bytes for tensor in chosen)
    with _bar(target.name, total) as advance:
        left_out = export.export(
            LocalStorage(), tensors, chosen, path, form, advance, replace=force
        )
    files = export.files_of(path, form)
    document = {
        "checkpoint": target.path,
        "out": path,
        "form": form,
        "files": list(files),
        "bytes": sum(os.path.getsize(file) for file in files),
        "tensors": len(chosen) - len(left_out),
        "omitted": [tensor.key for tensor in left_out],
    }
    if as_json:
        output.print_json(document)
    else:
        _print(document, left_out)


def _refuse_directory_in_use(path: str) -> None:
    """Raises ConfigurationError if an export could replace a checkpoint of a job, or confuse it."""
    storage, directory = LocalStorage(), os.path.dirname(path)
    if is_in_use(storage, directory):
        raise ConfigurationError(
            f"{directory} is the checkpoint directory of a job. Give OUT in another directory."
        )


def _print(document: dict[str, Any], left_out: list[Tensor]) -> None:
    count, size = output.plural(document["tensors"], "tensor"), output.size(document["bytes"])
    reports.say(f"{document['out']}: {count}, {size}")
    if left_out:
        names = ", ".join(tensor.short_key for tensor in left_out[:3])
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        click.echo(f"Omitted, because {document['form']} cannot hold their types: {names}{more}")


def _form_of(out: str) -> str:
    """Returns the form that the suffix of OUT means."""
    suffix = os.path.splitext(out)[1]
    return suffix[1:] if suffix in (".npz", ".safetensors") else "plain"


@contextlib.contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that advances a progress bar, shown only on a terminal."""
    with output.progress(show=True) as progress:
        if progress is None:
            yield lambda size: None
            return
        task = progress.add_task(name, total=total)
        yield lambda size: progress.advance(task, size)
