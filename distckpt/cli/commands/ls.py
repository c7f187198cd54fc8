"""``distckpt ls``: lists checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import click

from distckpt.cli import completion, output, reports, table
from distckpt.cli.target import find_directory, nothing_in
from distckpt.core import layout

if TYPE_CHECKING:
    from distckpt.inspection.inventory import Inventory, Item
    from distckpt.inspection.set_aside import SetAside

_EPILOG = f"""\b
Examples:
  distckpt ls /checkpoints/run-1
  distckpt ls /checkpoints/run-1 --why
  distckpt ls /checkpoints/run-1 --json | jq '.checkpoints[] | select(.newest) | .path'

{output.CODES}"""
_COLOURS = {"committed": "green", "unmanaged": "yellow", "quarantined": "red", "damaged": "red"}


@click.command(
    "ls",
    short_help="List the checkpoints in a directory and saves in progress.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", default=".", shell_complete=completion.directories)
@click.option("--why", is_flag=True, help="Also show why each is kept, or that it will be deleted.")
@output.json_option
def ls_command(directory: str, why: bool, as_json: bool) -> None:
    """List the checkpoints in DIRECTORY and saves in progress. Changes nothing.

    A checkpoint is "committed" if its manifest exists, "unmanaged" if plain TensorFlow wrote it,
    "quarantined" if it failed to restore, "damaged" if its manifest or index cannot be trusted or a
    file lacks bytes, and "deleted" if plain TensorFlow has deleted all but its manifest. "*" marks
    the checkpoint that a restore takes first. `distckpt verify` checks the bytes.
    """
    from distckpt.inspection import inventory

    storage, path = find_directory(directory)
    now = time.time()
    found = inventory.take(storage, path, now)
    damaged = reports.damaged(found.items)
    if as_json:
        output.print_json(_document(found, path))
        output.end(wrong=bool(damaged))
    if found.items or found.unfinished:
        _print_items(found, now, why)
    else:
        click.echo(nothing_in(storage, path, directory))
    for folder in found.set_aside:
        _print_set_aside(folder, {item.name for item in found.items}, directory)
    for save in found.unfinished:
        state = "in progress" if save.running else "left over (`distckpt gc` removes it)"
        click.echo(f"{save.name}: a save of term {save.term}, {state}, {output.size(save.bytes)}")
    if why and found.items:
        click.echo(f"\nThe job keeps: {found.rules or 'unknown; no manifest records it'}")
    output.end(wrong=bool(damaged))


def _document(found: Inventory, path: str) -> dict[str, object]:
    return {
        "directory": path,
        "checkpoints": [
            {**item.to_json(), "path": os.path.join(path, item.name)} for item in found.items
        ],
        "set_aside": [
            {**dataclasses.asdict(one), "folder": os.path.join(path, one.folder)}
            for one in found.set_aside
        ],
        "unfinished": [dataclasses.asdict(save) for save in found.unfinished],
        "owner": dataclasses.asdict(found.owner) if found.owner else None,
        "rules": found.rules,
    }


def _print_items(found: Inventory, now: float, why: bool) -> None:
    metrics = sorted({name for i in found.items if i.manifest for name in i.manifest.metrics})
    columns: list[tuple[str, str, Callable[[Item], str]]] = [
        ("", "l", lambda item: "*" if item.newest else ""),
        ("checkpoint", "l", lambda item: item.name),
        ("step", "r", lambda item: "-" if item.step is None else str(item.step)),
        ("saved", "r", lambda item: "-" if item.time is None else output.age(now - item.time)),
        ("size", "r", lambda item: output.size(item.bytes)),
        ("workers", "r", _workers),
        ("took", "r", _took),
        *((name, "r", functools.partial(_metric, name=name)) for name in metrics),
        ("state", "l", lambda item: click.style(item.state, fg=_COLOURS.get(item.state))),
    ]
    if any(item.pin or item.leases for item in found.items):
        columns.append(("held", "l", _held))
    if why:
        columns.append(("why", "l", lambda item: item.why))
    rows = [[cell(item) for _, _, cell in columns] for item in found.items]
    hide = ("workers", "took", "size", *reversed(metrics), "saved", "held")
    right = "".join(column[1] for column in columns)
    table.print_table([column[0] for column in columns], rows, right, hide)
    problems: dict[str, list[str]] = {}
    for item in found.items:
        problems.setdefault(item.problem, []).append(item.name)
    problems.pop("", None)
    for problem, names in problems.items():
        click.echo(f"{', '.join(names)}: {problem}")
    if found.items and not any(item.newest for item in found.items):
        click.echo(reports.NOTHING_TO_RESTORE)


def _print_set_aside(one: SetAside, existing: Collection[str], directory: str) -> None:
    """Says what a rollback has set aside, and how to bring one back."""
    folder = layout.join(directory, one.folder)
    free = [name for name in one.checkpoints if name not in existing]
    text = f"Set aside by a rollback, in {folder}: {', '.join(one.checkpoints)}."
    if free:
        source, target = shlex.quote(layout.join(folder, free[-1])), shlex.quote(directory)
        reports.say(f"{text} To bring back {free[-1]}: mv {source}.* {target}/")
    else:
        reports.say(f"{text} Others of these names were saved since: restore them from there.")


def _workers(item: Item) -> str:
    return str(len(item.manifest.workers)) if item.manifest and item.manifest.workers else "-"


def _took(item: Item) -> str:
    return output.duration(item.manifest.seconds or None if item.manifest else None)


def _metric(item: Item, name: str) -> str:
    values = item.manifest.metrics if item.manifest else {}
    return f"{values[name]:.6g}" if name in values else "-"


def _held(item: Item) -> str:
    return ", ".join([*["pinned"] * (item.pin is not None), *["leased"] * bool(item.leases)])
