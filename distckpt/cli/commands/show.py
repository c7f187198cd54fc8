"""``distckpt show``: shows the tensors of a checkpoint."""

from __future__ import annotations

import fnmatch
import time
from typing import TYPE_CHECKING, Any

import click

from distckpt.cli import completion, output, reports, table
from distckpt.cli.target import Target, find_checkpoint

if TYPE_CHECKING:
    from distckpt.core.tensorflow_format.tensor_values import Array
    from distckpt.reading.tensors import Tensor, Tensors

_EPILOG = f"""\b
Examples:
  distckpt show /checkpoints/run-1/ckpt-120
  distckpt show /checkpoints/run-1 --filter '*/bias' --values
  distckpt show /checkpoints/run-1 --json | jq '.tensors[].key'

{output.CODES}"""
_MOST_VALUES = 6
_MOST_BYTES = 40  # of a string


@click.command(
    "show", short_help="Show the tensors of a checkpoint.", cls=output.Command, epilog=_EPILOG
)
@click.argument("checkpoint", default=".", shell_complete=completion.checkpoints)
@click.option("--filter", "pattern", metavar="GLOB", help="Only tensors whose keys match.")
@click.option("--values", "with_values", is_flag=True, help="Read and summarise the values.")
@click.option("--full-keys", is_flag=True, help="Do not shorten keys.")
@output.json_option
def show_command(
    checkpoint: str, pattern: str | None, with_values: bool, full_keys: bool, as_json: bool
) -> None:
    """Show the tensors of CHECKPOINT (or of a directory's newest), with their workers and files.

    Keys of variables are shown without "/.ATTRIBUTES/VARIABLE_VALUE". With --values, the bytes are
    checked against their checksums.
    """
    from distckpt.inspection import damage

    target = find_checkpoint(checkpoint)
    tensors = open_tensors(target)
    chosen = choose(tensors, pattern)
    problem = damage.look(*target)
    if as_json:
        output.print_json({**_document(target, tensors, chosen, with_values), "problem": problem})
        output.end(wrong=bool(problem))
    _print_head(target, tensors)
    columns = ["tensor", "type", "shape", "size", "workers", "files"]
    if with_values:
        columns.append("values")
    rows = []
    for tensor in chosen:
        row = [
            tensor.key if full_keys else tensor.short_key,
            tensor.dtype,
            "x".join(map(str, tensor.shape)) or "scalar",
            output.size(tensor.bytes),
            ",".join(map(str, tensor.workers)) or "-",
            " ".join(file.removeprefix(target.name + ".") for file in tensor.files),
        ]
        rows.append([*row, _describe(tensors, tensor)] if with_values else row)
    table.print_table(columns, rows, right="lllrll", hide=("files", "workers", "size", "type"))
    total = output.size(sum(tensor.bytes for tensor in chosen))
    click.echo(f"{len(chosen)} of {output.plural(len(tensors.all()), 'tensor')}, {total}")
    if problem:
        reports.damage(target.name, problem)
    output.end(wrong=bool(problem))


def open_tensors(target: Target) -> Tensors:
    """Returns the tensors of a checkpoint."""
    from distckpt.reading.tensors import Tensors
    from distckpt.storage.retrying_reader import RetryingReader

    return Tensors(RetryingReader(target.storage), target.directory, target.name)


def choose(tensors: Tensors, pattern: str | None) -> list[Tensor]:
    """Returns the tensors whose keys, or short keys, match the pattern; without one, all."""
    return [
        tensor
        for tensor in tensors.all()
        if pattern is None
        or fnmatch.fnmatchcase(tensor.key, pattern)
        or fnmatch.fnmatchcase(tensor.short_key, pattern)
    ]


def _print_head(target: Target, tensors: Tensors) -> None:
    m = tensors.manifest
    if m is None:
        reports.say(f"{target.path}: a plain TensorFlow checkpoint\n")
        return
    saved = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(m.committed_at))
    metrics = "".join(f", {name} {value:.6g}" for name, value in sorted(m.metrics.items()))
    reports.say(f"{target.path}: step {m.step}{metrics}, saved {saved}, term {m.term}")
    for worker in m.workers:
        rate = f" at {output.size(worker.bytes / worker.seconds)}/s" if worker.seconds else ""
        click.echo(
            f"  worker {worker.worker} on {worker.host}: {output.size(worker.bytes)} in "
            f"{output.duration(worker.seconds)}{rate}"
        )
    click.echo()


def _describe(tensors: Tensors, tensor: Tensor) -> str:
    """Returns a summary of the value of a tensor."""
    if tensor.dtype in ("variant", "resource"):
        return "-"
    value = tensors.read(tensor)
    if tensor.dtype == "string":
        shown = ", ".join(_short(one) for one in value.ravel()[:2])
        return shown + (", ..." if value.size > 2 else "")
    if value.size <= _MOST_VALUES:
        return " ".join(f"{one:.6g}" if _is_real(value) else str(one) for one in value.ravel())
    return _statistics(value)


def _short(text: bytes) -> str:
    shown = repr(text[:_MOST_BYTES])
    return f"{shown}... ({len(text)} bytes)" if len(text) > _MOST_BYTES else shown


def _is_real(value: Array) -> bool:
    return value.dtype.kind in "fiu" or value.dtype.kind == "V"


def _statistics(value: Array) -> str:
    import numpy as np

    with np.errstate(all="ignore"):
        if np.iscomplexobj(value):
            return f"largest |x| {float(np.abs(value).max()):.6g}"
        wide = value.astype(np.float64)
        bad = int(np.count_nonzero(~np.isfinite(wide)))
        wide = wide[np.isfinite(wide)] if bad else wide
        text = "nothing finite"
        if wide.size:
            text = (
                f"min {wide.min():.6g} mean {wide.mean():.6g} max {wide.max():.6g} "
                f"std {wide.std():.6g}"
            )
    return f"{text}, {bad} not finite" if bad else text


def _document(
    target: Target, tensors: Tensors, chosen: list[Tensor], with_values: bool
) -> dict[str, Any]:
    m = tensors.manifest
    return {
        "path": target.path,
        "step": m.step if m else None,
        "term": m.term if m else None,
        "committed_at": m.committed_at if m else None,
        "metrics": {k: output.json_number(v) for k, v in m.metrics.items()} if m else {},
        "versions": m.versions if m else {},
        "workers": [vars(worker) for worker in m.workers] if m else [],
        "tensors": [_entry(tensors, tensor, with_values) for tensor in chosen],
    }


def _entry(tensors: Tensors, tensor: Tensor, with_values: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "key": tensor.key,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "bytes": tensor.bytes,
        "workers": list(tensor.workers),
        "files": list(tensor.files),
        "slices": [piece.spec for piece in tensor.pieces if piece.spec],
    }
    if with_values and tensor.dtype not in ("variant", "resource"):
        entry["values"] = _plain(tensors.read(tensor).tolist())
    return entry


def _plain(value: Any) -> Any:
    """Returns a value in a form that JSON can hold."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, complex):
        return [output.json_number(value.real), output.json_number(value.imag)]
    return output.json_number(value) if isinstance(value, float) else value
