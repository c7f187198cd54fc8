"""The command `guided` finds what is wrong; a few seconds of it find nothing in distckpt."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from .guided import available
from .targets import targets

needs_atheris = pytest.mark.skipif(
    not available(), reason="atheris is not installed (launch/setup_venv.sh test fuzz)"
)


def run(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(python or ("-m", "tests.fuzz.guided")), *arguments],
        cwd=pathlib.Path(__file__).parents[2],
        env={"COLUMNS": "120", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=400,
    )


@needs_atheris
@pytest.mark.parametrize("name", ["fields", "block"])
def test_a_few_seconds_find_nothing(name):
    done = run("--target", name, "--seconds", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line for line in done.stdout.splitlines() if name in line]
    tried, refused, accepted, crashes = (
        int(cell.replace(",", "")) for cell in row.strip("│ ").split("│")[1:]
    )
    assert tried == refused + accepted > 100
    assert accepted > 0
    assert crashes == 0


@needs_atheris
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", r"KeyError: 'found', KeyError at .*wrong.py:\d+, for the input (\S+)"),
        ("takes too much", r"\d+ bytes for \d+ of input, memory .*, for the input (.+crash-1)"),
    ],
)
def test_a_parser_that_is_wrong_is_found(name, says):
    seconds = "10" if name == "raises" else "4"
    done = run("--module", "tests.fuzz.wrong", "--target", name, "--seconds", seconds)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.search(says, done.stdout)
    assert found, done.stdout
    kept = pathlib.Path(found[1])
    assert kept.read_bytes().startswith(b"disc") or name != "raises"
    shutil.rmtree(kept.parent)


@needs_atheris
def test_a_parser_that_hangs_is_found():
    done = run("--module", "tests.fuzz.wrong", "--target", "hangs", "--patience", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "an input took too long" in done.stdout
    shutil.rmtree(re.search(r"see (\S+):", done.stdout)[1])


def test_without_atheris_it_says_what_to_install():
    hidden = "import sys, runpy; sys.modules['atheris'] = None; sys.argv = ['guided'];"
    done = run(
        python=("-c", f"{hidden} runpy.run_module('tests.fuzz.guided', run_name='__main__')")
    )
    assert done.returncode == 2
    assert "launch/setup_venv.sh test fuzz" in done.stderr


@pytest.mark.skipif(not available(), reason="without atheris it stops before that")
def test_what_is_no_target_is_refused_with_those_that_are():
    done = run("--target", "wheel")
    assert done.returncode == 2
    assert "wheel is none of" in done.stderr
    assert all(name in done.stderr for name in targets())
