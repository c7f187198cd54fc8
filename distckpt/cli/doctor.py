"""``distckpt doctor``: whether a directory can serve for checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from distckpt import exit_codes, portable
from distckpt.cli import completion, output
from distckpt.errors import ConfigurationError, DistckptError

if TYPE_CHECKING:
    from distckpt.roles.finding import Finding
    from distckpt.storage.base import Storage

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)(?:i?B)?")
_EPILOG = """\b
Examples:
  distckpt doctor /checkpoints/run-1
  distckpt doctor /checkpoints --free 20GiB
  srun distckpt doctor /checkpoints/run-1 --workers 4

\b
Exit codes:
  0            all is well, but for what has a WARN
  2            wrong usage
  69           not all of --workers have come, or one has gone; start them again
  78           the directory cannot serve; starting the job again is useless
  130          interrupted (Ctrl-C)
"""


@click.command(
    "doctor",
    short_help="Try out whether a directory can serve for checkpoints.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", shell_complete=completion.directories)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="So many processes run this at the same time, on as many hosts: let them meet, and look "
    "whether they can save together.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0.0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long to wait for the others.",
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many checkpoints there are to be room for; by default as many as the job keeps.",
)
@click.option(
    "--free", metavar="SIZE", help="Also see to it that so much space is free: 500M, 20GiB."
)
@click.pass_context
def doctor_command(
    context: click.Context,
    directory: str,
    workers: int | None,
    timeout: float,
    keep: int | None,
    free: str | None,
) -> None:
    """Try out whether DIRECTORY can serve for checkpoints, and say what to do if not.

    Everything that a save does to a directory is done in a folder of its own there, which is
    removed again: writing, exclusive creation, renames that replace a file, flushing, and how fast
    that is. The clock is compared with that of the file system, and the free space with the
    checkpoints that are there. DIRECTORY is made if it is not there. Jobs that save there are not
    disturbed.

    With --workers N, start the same command N times, once on each host: each waits for the others,
    and then they look whether all see the same directory, and what each does in it, and whether
    their clocks agree.
    """
    from distckpt.roles.doctor import examine
    from distckpt.roles.finding import Finding
    from distckpt.roles.together import compare
    from distckpt.storage.choose import storage_for

    wanted = parse_size(free) if free is not None else 0
    path = portable.absolute(directory)
    try:
        storage = storage_for(path)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    good = show_all(examine(storage, path)) and show_all([_space(storage, path, wanted, keep)])
    if good and workers is not None:
        click.echo(f"waiting for {workers} workers, {timeout:g} s at the most …", err=True)
        try:
            good = show_all(compare(storage, path, workers, timeout))
        except DistckptError as error:
            show(Finding("workers", False, str(error)))
            context.exit(exit_codes.of(error))
    context.exit(exit_codes.FINISHED if good else exit_codes.CONFIGURATION)


def show_all(findings: Iterable[Finding]) -> bool:
    """Prints findings as they come, each on one line; returns whether all are good."""
    good = True
    for finding in findings:
        show(finding)
        good = good and finding.good
    return good


def show(finding: Finding) -> None:
    """Prints a finding on one line."""
    colour, mark = ("yellow", "WARN") if finding.doubtful else ("green", "ok  ")
    if not finding.good:
        colour, mark = "red", "FAIL"
    mark = click.style(mark, fg=colour, bold=not finding.good)
    click.echo(f"{mark} {finding.check}: {finding.text}")


def parse_size(text: str) -> int:
    """Returns a number of bytes given as "500M" or "20GiB".

    Raises:
      click.BadParameter: It is none.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise click.BadParameter(f"{text!r} is not a size such as 20GiB.", param_hint="'--free'")
    return int(match[1]) * _UNITS[match[2]]


def _space(storage: Storage, path: str, wanted: int, keep: int | None) -> Finding:
    """Compares the free space with what is asked for, and with what the checkpoints will take."""
    from distckpt.roles import room
    from distckpt.roles.finding import Finding

    try:
        found, needs = storage.free(path), room.look(storage, path, keep)
    except OSError as error:
        return Finding("free space", False, output.explain(error))
    if found is None:
        return Finding("free space", True, "not known here")
    text = output.size(found)
    if needs.newest:
        text += f"; {needs.kept} checkpoints like the newest ({output.size(needs.newest)}) are kept"
        text += f", and all that come: {needs.more(found)} more fit" if needs.unlimited else ""
    if found >= max(wanted, needs.wanted):
        return Finding("free space", True, text)
    wants = output.size(max(wanted, needs.wanted))
    advice = f"{text}; {wants} are wanted. Free some, give the volume more, or keep fewer."
    return Finding("free space", False, advice)
