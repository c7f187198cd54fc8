"""How workers ended, as numbers and as text. Pure.

Exit codes follow the shell's conventions (POSIX "Shell Command Language", 2.8.2 "Exit Status"), for
scripts that wrap ``distckpt launch``.
"""

from __future__ import annotations

import dataclasses
import errno
import signal
from collections.abc import Iterable

from distckpt import exit_codes


@dataclasses.dataclass(frozen=True)
class WorkerProcess:
    """The state of one worker of a cluster at one moment.

    Attributes:
      index: Position in the cluster, from 0; with a chief, the chief is 0.
      name: "worker 1" or "chief".
      pid: Process id, also the id of its process group and session. None before it was started.
      returncode: Exit code; minus the signal number if a signal ended it; None while it runs.
      ended_at: When it ended, in seconds of ``time.monotonic``; None while it runs.
      gone: Whether the worker and all its descendants have ended.
      log: Path of the file with its output, or None.
    """

    index: int
    name: str
    pid: int | None = None
    returncode: int | None = None
    ended_at: float | None = None
    gone: bool = False
    log: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it has ended with an exit code other than 0."""
        return self.returncode not in (None, 0)


@dataclasses.dataclass(frozen=True)
class LaunchResult:
    """The result of a launch.

    Attributes:
      exit_code: What the command line returns: see ``distckpt launch --help``.
      restarts: How many times the cluster was started again.
      workers: The workers of the last start, as they ended.
    """

    exit_code: int
    restarts: int
    workers: tuple[WorkerProcess, ...]


def first_failed(workers: Iterable[WorkerProcess]) -> WorkerProcess | None:
    """Returns the worker that failed first, by its guard's clock, or None if none has failed.

    The first failure is the cause; the other workers mostly fail because of it.
    """
    failed = [worker for worker in workers if worker.failed]
    return min(failed, key=lambda worker: (worker.ended_at or 0.0, worker.index), default=None)


def exit_code(returncode: int) -> int:
    """Returns the exit code a shell would report: 128 + n for a process ended by signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def exit_code_of_error(number: int) -> int:
    """Returns the exit code for a command that could not be started with ``errno`` `number`."""
    return exit_codes.NOT_FOUND if number == errno.ENOENT else exit_codes.NOT_EXECUTABLE


def signal_name(number: int) -> str:
    """Returns "SIGKILL" for 9; "signal 64" for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def describe(returncode: int) -> str:
    """Returns how a process ended: "exited with code 3", "was killed by SIGKILL"."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    return f"was killed by {signal_name(-returncode)}"
