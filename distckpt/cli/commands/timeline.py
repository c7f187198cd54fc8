"""``distckpt timeline``: draws the last saves by worker and phase."""

from __future__ import annotations

import time

import click

from distckpt.cli import completion, output, reports, shown_paths
from distckpt.cli.target import find_directory, nothing_in
from distckpt.errors import ConfigurationError
from distckpt.runtime import portable

_EPILOG = f"""\b
Examples:
  distckpt timeline /checkpoints/run-1 -o saves.html
  distckpt timeline /checkpoints/run-1 -o saves.png --last 1
  distckpt timeline /checkpoints/run-1 --json

{output.CODES}"""


@click.command(
    "timeline",
    short_help="Draw the phases of each worker in the last saves.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", default=".", shell_complete=completion.directories)
@click.option("-o", "--output", "path", metavar="FILE", help="Draw to a .html, .png or .svg file.")
@click.option(
    "--last",
    "count",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    metavar="N",
    help="Show the N newest saves.",
)
@output.json_option
def timeline_command(directory: str, path: str | None, count: int, as_json: bool) -> None:
    """Draw the phases of each worker in the last saves of DIRECTORY, and name late workers.

    The data come from the manifests, so only saves whose checkpoints still exist are shown. A
    worker is late if its own work, without waiting, took more than one and a half times that of
    most workers. Without -o, a line for each save is printed. Drawing requires the extra
    "timeline".
    """
    from distckpt.inspection import inventory, timeline

    storage, where = find_directory(directory)
    items = inventory.take(storage, where, time.time()).items
    saves = timeline.last((item.manifest for item in items if item.manifest), count)
    damaged = reports.damaged(items)
    if not saves and items and not damaged:
        raise ConfigurationError(
            f"No manifest in {directory} records phases. Checkpoints saved by distckpt have them."
        )
    if not items and path is not None:
        raise ConfigurationError(nothing_in(storage, where, directory))
    if as_json:
        found = [save.to_json() for save in saves]
        problems = reports.damage_to_json(damaged)
        output.print_json({"directory": where, "saves": found, "damaged": problems})
    if path is not None and saves:
        from distckpt.inspection.timeline_picture import draw

        picture = portable.absolute(path)
        shown_paths.remember(picture, path)
        draw(saves, picture)
    if not as_json:
        if not items:
            click.echo(nothing_in(storage, where, directory))
        for save in saves:
            click.echo(save.headline)
        for item in damaged:
            reports.damage(item.name, item.problem)
    output.end(wrong=bool(damaged))
