"""What ends a program becomes an exit code, in real interpreters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distckpt
from distckpt import errors, exit_codes

ROOT = Path(__file__).parents[2]
UNAVAILABLE = """
class UnavailableError(Exception):
    __module__ = "tensorflow.python.framework.errors_impl"
"""


def run(code, **variables):
    where = str(Path(distckpt.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", "import distckpt\nfrom distckpt import errors\n" + code],
        env={**os.environ, "PYTHONPATH": where, "DISTCKPT_EXIT_CODES": "1", **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise errors.WorkerLostError('w')", 69),
        ("raise errors.DeadlineExceededError('w')", 69),
        ("raise errors.CommitUnknownError('w')", 69),
        ("raise errors.SupersededError('w')", 77),
        ("raise errors.DirectoryNotSharedError('w')", 78),
        ("raise errors.SaveFailedError('w')", 1),
        ("raise ValueError('w')", 1),
        (UNAVAILABLE + "raise UnavailableError('w')", 69),
        (UNAVAILABLE + "raise RuntimeError('w') from UnavailableError('x')", 69),
        ("try:\n raise errors.SupersededError('x')\nfinally:\n 1 / 0", 77),
        (
            "try:\n raise errors.SupersededError\nexcept Exception:\n raise KeyError from None",
            1,
        ),
        ("class Own(errors.ConfigurationError): pass\nraise Own('w')", 78),
        ("raise SystemExit(5)", 5),
        ("print('good')", 0),
    ],
)
def test_an_exception_that_nobody_catches_becomes_its_code(code, expected):
    done = run(code)
    assert done.returncode == expected, done.stderr
    if "SystemExit" not in code and expected:
        assert done.stderr.count("Traceback (most recent call last)") >= 1
        assert "exit_codes.py" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "error", "expected"),
    [
        ("True", "WorkerLostError", 70),
        ("False", "WorkerLostError", 69),
        ("True", "SupersededError", 77),
        ("True", "SaveFailedError", 1),
    ],
)
def test_a_lost_worker_counts_if_the_job_has_got_nowhere(answer, error, expected):
    judge = f"distckpt.exit_codes.judge_by(lambda: {answer})\n"
    assert run(f"{judge}raise errors.{error}('w')").returncode == expected


def test_an_interrupt_stays_one():
    assert run("raise KeyboardInterrupt").returncode in (130, -2)


def test_a_hook_of_the_program_s_own_goes_on_working():
    code = "import sys\nsys.excepthook = lambda *a: print('mine')\nraise errors.WorkerLostError"
    done = run(code)
    assert done.stdout == "mine\n"


def test_without_the_variable_python_s_own_code_stays():
    assert run("raise errors.WorkerLostError('w')", DISTCKPT_EXIT_CODES="").returncode == 1


def test_tensorflow_s_own_errors_are_known():
    from tensorflow.python.framework import errors_impl

    assert exit_codes.of(errors_impl.UnavailableError(None, None, "gone")) == 69
    assert exit_codes.of(errors_impl.AbortedError(None, None, "gone")) == 69
    assert exit_codes.of(errors_impl.InvalidArgumentError(None, None, "bad")) == 1


def test_causes_that_go_round_in_circles_end():
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert exit_codes.of(first) == 1


def test_installing_it_twice_prints_one_traceback():
    code = "distckpt.exit_codes.install()\nraise errors.WorkerLostError('w')"
    done = run(code)
    assert done.returncode == 69
    assert done.stderr.count("Traceback") == 1


def test_every_error_that_says_what_to_do_next_has_a_code():
    """Those that leave the program able to go on have none; nor has what an error cannot tell."""
    codes = {name: exit_codes.of(kind("w")) for name, kind in errors._BY_NAME.items()}
    assert {name for name, code in codes.items() if code == 1} == {
        "DistckptError",
        "SaveFailedError",
        "DirectoryClearedError",
        "StorageFullError",
        "ReplicaMismatchError",
        "RestoreError",
        "CheckpointDamagedError",
        "ManifestError",
    }


def test_the_documented_table_is_the_module_s():
    page = (ROOT / "docs" / "exit_codes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `?(\w*)`? \|", page, re.M)
    names = {
        value: name
        for name, value in vars(exit_codes).items()
        if name.isupper() and isinstance(value, int)
    }
    assert {int(code): name for code, name in rows if name} == names
    assert names.keys() == exit_codes.MEANINGS.keys()
