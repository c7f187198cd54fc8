from __future__ import annotations

import errno
import signal

import pytest

from distckpt.launcher import outcome
from distckpt.launcher.outcome import WorkerProcess


def worker(index: int, returncode: int | None, ended_at: float | None = None) -> WorkerProcess:
    return WorkerProcess(index, f"worker {index}", 100 + index, returncode, ended_at)


@pytest.mark.parametrize(
    ("returncode", "expected"),
    [(0, 0), (3, 3), (255, 255), (-signal.SIGKILL, 137), (-signal.SIGTERM, 143)],
)
def test_exit_code_is_what_a_shell_would_report(returncode: int, expected: int) -> None:
    assert outcome.exit_code(returncode) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOENT, 127), (errno.EACCES, 126), (errno.ENOEXEC, 126), (errno.E2BIG, 126)],
)
def test_exit_code_of_a_command_that_does_not_start(number: int, expected: int) -> None:
    assert outcome.exit_code_of_error(number) == expected


@pytest.mark.parametrize(
    ("returncode", "expected"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-40, "was killed by signal 40"),
    ],
)
def test_describe_says_how_a_process_ended(returncode: int, expected: str) -> None:
    assert outcome.describe(returncode) == expected


def test_first_failed_goes_by_the_time_of_death_and_not_by_the_index() -> None:
    workers = [worker(0, 1, ended_at=7.2), worker(1, -9, ended_at=7.1), worker(2, 0, ended_at=1.0)]
    assert outcome.first_failed(workers) == workers[1]


def test_nobody_failed_while_some_run_and_others_finished_well() -> None:
    assert outcome.first_failed([worker(0, None), worker(1, 0, 1.0)]) is None
