"""A forked command behaves like the console script."""

from __future__ import annotations

import subprocess

import pytest

from . import command

COMMANDS = [("--version",), ("ls", "--help"), ("ls", "nowhere"), ("frobnicate",), ()]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_it_prints_and_ends_as_the_script_does(tmp_path, arguments):
    forked = command.run(*arguments, cwd=tmp_path)
    started = subprocess.run(
        [command.SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    for part in ("returncode", "stdout", "stderr"):
        assert getattr(forked, part) == getattr(started, part)


def test_it_has_the_environment_of_the_test(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    narrow = command.run("ls", "--help").stdout
    monkeypatch.setenv("COLUMNS", "80")
    assert len(narrow.splitlines()) > len(command.run("ls", "--help").stdout.splitlines())
    monkeypatch.setenv("PYTHONWARNINGS", "default")  # Python reads it when it starts
    assert command.run("--version").returncode == 0


def test_one_that_takes_too_long_is_killed(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        command.run("watch", tmp_path, timeout=0.5)
    assert command.run("--version").returncode == 0
