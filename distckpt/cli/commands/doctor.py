"""``distckpt doctor``: tests whether a directory is suitable for checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from distckpt import exit_codes
from distckpt.cli import completion, output, reports, shown_paths
from distckpt.cli.target import refuse_checkpoint
from distckpt.errors import ConfigurationError, DistckptError, explain
from distckpt.runtime import portable

if TYPE_CHECKING:
    from distckpt.doctor.finding import Finding
    from distckpt.storage.base import Storage

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)(?:i?B)?")
_MARKS = {"ok": ("green", "ok  "), "warn": ("yellow", "WARN"), "fail": ("red", "FAIL")}
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
@output.json_option
def doctor_command(
    directory: str,
    workers: int | None,
    timeout: float,
    keep: int | None,
    free: str | None,
    as_json: bool,
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
    from distckpt.doctor.single_process_check import examine
    from distckpt.storage.choose import storage_for

    wanted = parse_size(free) if free is not None else 0
    path = portable.absolute(directory)
    shown_paths.remember(path, directory)
    try:
        storage = storage_for(path)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    refuse_checkpoint(storage, path, directory)
    findings = Findings(show=not as_json)
    findings.take(examine(storage, path))
    if findings.good:
        findings.take([_space(storage, path, wanted, keep)])
    code = exit_codes.FINISHED if findings.good else exit_codes.CONFIGURATION
    if findings.good and workers is not None:
        code = _meet(findings, storage, path, workers, timeout)
    if as_json:
        what = {"directory": path, "workers": workers, "good": findings.good}
        output.print_json({**what, "findings": [_to_json(one) for one in findings.all]})
    click.get_current_context().exit(code)


class Findings:
    """What was found so far; with `show`, each finding is printed as it arrives."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self.all: list[Finding] = []

    @property
    def good(self) -> bool:
        """Whether a job can save there, according to all of them."""
        return all(finding.good for finding in self.all)

    def take(self, findings: Iterable[Finding]) -> None:
        """Adds findings."""
        for finding in findings:
            self.all.append(finding)
            if self._show:
                show(finding)


def _meet(found: Findings, storage: Storage, path: str, workers: int, timeout: float) -> int:
    """Adds what this process finds out together with the others; returns the exit code."""
    from distckpt.doctor.finding import Finding
    from distckpt.doctor.multi_process_check import compare

    click.echo(f"waiting up to {timeout:g} s for {output.plural(workers, 'worker')} …", err=True)
    try:
        found.take(compare(storage, path, workers, timeout))
    except DistckptError as error:
        found.take([Finding("workers", False, str(error))])
        return exit_codes.of(error)
    return exit_codes.FINISHED if found.good else exit_codes.CONFIGURATION


def _to_json(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "result": _result(finding), "text": finding.text}


def _result(finding: Finding) -> str:
    if not finding.good:
        return "fail"
    return "warn" if finding.doubtful else "ok"


def show(finding: Finding) -> None:
    """Prints a finding on one line."""
    colour, mark = _MARKS[_result(finding)]
    mark = click.style(mark, fg=colour, bold=not finding.good)
    reports.say(f"{mark} {finding.check}: {finding.text}")


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
        return Finding("free space", False, f"{explain(error)}.")
    if found is None:
        return Finding("free space", True, "unknown on this storage")
    text = output.size(found)
    if needs.newest:
        kept, verb = output.plural(needs.kept, "checkpoint"), "is" if needs.kept == 1 else "are"
        text += f"; {kept} like the newest ({output.size(needs.newest)}) {verb} kept"
        text += f", as are all later ones: {needs.more(found)} more fit" if needs.unlimited else ""
    if found >= max(wanted, needs.wanted):
        return Finding("free space", True, text)
    wants = output.size(max(wanted, needs.wanted))
    advice = f"{text}; {wants} are needed. Free space, enlarge the volume, or keep fewer."
    return Finding("free space", False, advice)
