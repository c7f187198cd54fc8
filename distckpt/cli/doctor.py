"""``distckpt doctor``: whether a directory can serve for checkpoints."""

from __future__ import annotations

import os
import re
import shutil

import click

from distckpt import exit_codes
from distckpt.errors import ConfigurationError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)(?:i?B)?")
_EPILOG = """\b
Examples:
  distckpt doctor /checkpoints/run-1
  distckpt doctor /checkpoints --free 20GiB

\b
Exit codes:
  0            all is well
  2            wrong usage
  78           the directory cannot serve; starting the job again is useless
"""


@click.command("doctor", epilog=_EPILOG)
@click.argument("directory")
@click.option(
    "--free", metavar="SIZE", help="Also see to it that so much space is free: 500M, 20GiB."
)
@click.pass_context
def doctor_command(context: click.Context, directory: str, free: str | None) -> None:
    """Try out whether DIRECTORY can serve for checkpoints, and say what to do if not.

    Everything that a save does to a directory is done in a folder of its own there, which is
    removed again: writing, exclusive creation, renames that replace a file, flushing. DIRECTORY is
    made if it is not there. Jobs that save there are not disturbed.

    It says nothing of other hosts. Whether all workers see the same directory, each save finds out.
    """
    from distckpt.roles.doctor import Finding, examine
    from distckpt.storage.choose import storage_for

    wanted = parse_size(free) if free is not None else 0
    path = directory if "://" in directory else os.path.abspath(directory)
    try:
        findings = examine(storage_for(path), path)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    good = True
    for finding in findings:
        show(finding)
        good = good and finding.good
    if good and wanted:
        space = Finding("free space", *_space(path, wanted))
        show(space)
        good = space.good
    context.exit(exit_codes.FINISHED if good else exit_codes.CONFIGURATION)


def show(finding: object) -> None:
    """Prints a finding on one line."""
    good, check, text = (getattr(finding, name) for name in ("good", "check", "text"))
    mark = click.style("ok  ", fg="green") if good else click.style("FAIL", fg="red", bold=True)
    click.echo(f"{mark} {check}: {text}")


def parse_size(text: str) -> int:
    """Returns a number of bytes given as "500M" or "20GiB".

    Raises:
      click.BadParameter: It is none.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise click.BadParameter(f"{text!r} is not a size such as 20GiB.", param_hint="'--free'")
    return int(match[1]) * _UNITS[match[2]]


def _space(path: str, wanted: int) -> tuple[bool, str]:
    if "://" in path:
        return True, "not known here"
    found = shutil.disk_usage(path).free
    text = f"{found / 2**30:.2f} GiB"
    if found >= wanted:
        return True, text
    return False, (
        f"{text}, and {wanted / 2**30:.2f} GiB are wanted. Free some, or give the volume more."
    )
