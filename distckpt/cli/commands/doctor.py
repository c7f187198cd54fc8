"""``distckpt doctor``: tests whether a directory is suitable for checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from distckpt import exit_codes
from distckpt.cli import completion, output
from distckpt.errors import ConfigurationError, DistckptError
from distckpt.runtime import portable

if TYPE_CHECKING:
    from distckpt.doctor.finding import Finding
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
  0            all is well, apart from warnings (WARN)
  2            wrong usage
  69           a worker did not come, or was lost; start all N workers again
  78           the directory is unsuitable; starting the job again is useless
  130          interrupted (Ctrl-C)
"""


@click.command(
    "doctor",
    short_help="Test whether a directory is suitable for checkpoints.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", shell_complete=completion.directories)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="Test whether N processes can save together; each runs this command on its own host at "
    "the same time.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0.0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long to wait for the other workers.",
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=1),
    help="Require space for N checkpoints. Default: as many as the job keeps.",
)
@click.option("--free", metavar="SIZE", help="Also require this much free space: 500M, 20GiB.")
@click.pass_context
def doctor_command(
    context: click.Context,
    directory: str,
    workers: int | None,
    timeout: float,
    keep: int | None,
    free: str | None,
) -> None:
    """Test whether DIRECTORY is suitable for checkpoints, and say what to do if it is not.

    The tests do what a save does, in a temporary folder of DIRECTORY: writing, exclusive creation,
    renames that replace a file, and flushing, with their speed. They also compare this host's clock
    with the file system's, and the free space with the size of the existing checkpoints. DIRECTORY
    is created if it does not exist. Jobs that save there are not disturbed.

    With --workers N, start the same command N times, once on each host. The processes wait for each
    other, then test whether all see the same directory and each other's changes, and whether their
    clocks agree.
    """
    from distckpt.doctor.finding import Finding
    from distckpt.doctor.multi_process_check import compare
    from distckpt.doctor.single_process_check import examine
    from distckpt.storage.choose import storage_for

    wanted = parse_size(free) if free is not None else 0
    path = portable.absolute(directory)
    try:
        storage = storage_for(path)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    good = show_all(examine(storage, path)) and show_all([_space(storage, path, wanted, keep)])
    if good and workers is not None:
        click.echo(f"waiting up to {timeout:g} s for {workers} workers …", err=True)
        try:
            good = show_all(compare(storage, path, workers, timeout))
        except DistckptError as error:
            show(Finding("workers", False, str(error)))
            context.exit(exit_codes.of(error))
    context.exit(exit_codes.FINISHED if good else exit_codes.CONFIGURATION)


def show_all(findings: Iterable[Finding]) -> bool:
    """Prints findings as they arrive, one on each line; returns whether all are good."""
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
      click.BadParameter: The text is not a size.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise click.BadParameter(f"{text!r} is not a size such as 20GiB.", param_hint="'--free'")
    return int(match[1]) * _UNITS[match[2]]


def _space(storage: Storage, path: str, wanted: int, keep: int | None) -> Finding:
    """Compares the free space with `wanted` and with the space that the checkpoints need."""
    from distckpt.doctor.finding import Finding
    from distckpt.inspection import space_needed

    try:
        found, needs = storage.free(path), space_needed.look(storage, path, keep)
    except OSError as error:
        return Finding("free space", False, output.explain(error))
    if found is None:
        return Finding("free space", True, "unknown on this storage")
    text = output.size(found)
    if needs.newest:
        text += f"; {needs.kept} checkpoints like the newest ({output.size(needs.newest)}) are kept"
        text += f", as are all later ones: {needs.more(found)} more fit" if needs.unlimited else ""
    if found >= max(wanted, needs.wanted):
        return Finding("free space", True, text)
    wants = output.size(max(wanted, needs.wanted))
    advice = f"{text}; {wants} are needed. Free space, enlarge the volume, or keep fewer."
    return Finding("free space", False, advice)
