"""``distckpt timeline``: draws the last saves by worker and phase."""

from __future__ import annotations

import time

import click

from distckpt import portable
from distckpt.cli import completion, output
from distckpt.cli.target import find_directory
from distckpt.errors import ConfigurationError

_EPILOG = f"""\b
Examples:
  distckpt timeline /checkpoints/run-1 -o saves.html
  distckpt timeline /checkpoints/run-1 -o saves.png --last 1
  distckpt timeline /checkpoints/run-1 --json

{output.CODES}"""


@click.command(
    "timeline",
    short_help="Draw who did what when in the last saves.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", default=".", shell_complete=completion.directories)
@click.option("-o", "--output", "path", metavar="FILE", help="A .html, .png or .svg to draw.")
@click.option(
    "--last",
    "count",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    metavar="N",
    help="How many saves, the newest.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def timeline_command(directory: str, path: str | None, count: int, as_json: bool) -> None:
    """Draw what each worker did when in the last saves of DIRECTORY, and name who was late.

    The manifests tell it, so only saves whose checkpoints are still there are shown. A worker is
    late if its own part (not its waiting) took more than one and a half times that of most.
    Without -o, a line for each save is printed. To draw takes the extra "timeline".
    """
    from distckpt.core import timeline
    from distckpt.roles import inventory

    storage, where = find_directory(directory)
    items = inventory.take(storage, where, time.time()).items
    saves = timeline.last((item.manifest for item in items if item.manifest), count)
    if not saves:
        raise ConfigurationError(
            f"No manifest in {directory} tells what its workers did when; those of distckpt do."
        )
    if as_json:
        output.print_json({"directory": where, "saves": [save.to_json() for save in saves]})
    if path is not None:
        from distckpt.drawing import draw

        draw(saves, portable.absolute(path))
    if not as_json:
        for save in saves:
            click.echo(save.headline)
