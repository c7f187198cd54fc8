"""What a newcomer is told, by the console script itself, about every command."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata

import pytest

from distckpt.cli import main

from ..docs import shell as shell_lines
from .conftest import SCRIPT

COMMANDS = sorted(main.commands)


def run(*arguments):
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=300)


def test_the_version_and_nothing_else():
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"distckpt {metadata.version('distckpt')}\n"


def test_help_lists_all_commands_each_with_a_whole_sentence():
    done = run("--help")
    assert done.returncode == 0
    listed = dict(re.findall(r"^  ([a-z]+)  +(\S.*)$", done.stdout, re.MULTILINE))
    listed = {name: text for name, text in listed.items() if name != "distckpt"}
    assert sorted(listed) == COMMANDS
    for text in listed.values():
        assert text.endswith(".")
        assert not text.endswith("...")
    assert "distckpt COMMAND --help" in done.stdout
    assert done.stdout == run("-h").stdout


def test_nothing_at_all_shows_the_same_and_is_wrong_usage():
    done = run()
    assert done.returncode == 2
    assert done.stdout + done.stderr == run("--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_options_examples_and_exit_codes(command):
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert text.startswith(f"Usage: distckpt {command} ")
    codes = text[text.index("Exit codes:") :]
    for code in ("0 ", "2 ", "130 "):
        assert f"\n    {code}" in codes
    for parameter in main.commands[command].params:
        assert parameter.help if parameter.param_type_name == "option" else parameter.name
    examples = re.search(r"Examples:\n(.*?)\n\n", text, re.DOTALL)[1]
    assert f"  distckpt {command} " in examples
    lines = re.sub(r" \([A-Za-z ]+\)$", "", examples, flags=re.MULTILINE)
    assert shell_lines.mistakes(lines) == []


@pytest.mark.parametrize("words", [["lss"], ["ls", "--jsn"], ["pin"], ["diff", "one"]])
def test_wrong_usage_says_where_the_help_is(words):
    done = run(*words)
    assert done.returncode == 2
    assert "--help' for help." in done.stderr
    assert "Traceback" not in done.stderr
