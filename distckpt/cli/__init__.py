"""The command line: the group `main`; each command has its own module.

This module imports only click, so that ``distckpt --help`` answers at once. A command imports what
it needs when it runs.
"""

from __future__ import annotations

import os

import click

from distckpt.cli.commands.diff import diff_command
from distckpt.cli.commands.doctor import doctor_command
from distckpt.cli.commands.export import export_command
from distckpt.cli.commands.gc import gc_command
from distckpt.cli.commands.import_ import import_command
from distckpt.cli.commands.launch import launch_command
from distckpt.cli.commands.ls import ls_command
from distckpt.cli.commands.pin import pin_command, unpin_command
from distckpt.cli.commands.prune import prune_command
from distckpt.cli.commands.rollback import rollback_command
from distckpt.cli.commands.show import show_command
from distckpt.cli.commands.timeline import timeline_command
from distckpt.cli.commands.verify import verify_command
from distckpt.cli.commands.watch import watch_command

__all__ = ["main"]


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from distckpt.runtime.version import VERSION

    click.echo(f"distckpt {VERSION}")
    context.exit()


_EPILOG = """\b
Examples:
  distckpt ls /checkpoints/run-1
  distckpt verify /checkpoints/run-1 --all
  distckpt doctor /checkpoints/run-1
  distckpt launch --workers 2 -- python train.py

\b
`distckpt COMMAND --help` shows options, examples and exit codes.
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Sharded, committed checkpoints for tf.distribute.

    The commands inspect and manage a directory of checkpoints, during a job or between jobs;
    `launch` starts the workers of a job. Name a checkpoint by its path (/run/ckpt-12), or by its
    directory, which means the newest checkpoint there.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False  # rich does the same by itself


for command in (
    diff_command,
    doctor_command,
    export_command,
    gc_command,
    import_command,
    launch_command,
    ls_command,
    pin_command,
    prune_command,
    rollback_command,
    show_command,
    timeline_command,
    unpin_command,
    verify_command,
    watch_command,
):
    main.add_command(command)
