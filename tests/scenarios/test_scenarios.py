"""Replays the files in ``testdata``; with DISTCKPT_REWRITE_SCENARIOS=1 it writes what came out."""

from __future__ import annotations

import os
import pathlib

import pytest

from .interpreter import Interpreter

FOLDER = pathlib.Path(__file__).parent / "testdata"
SEPARATOR = "----"


def replay(text):
    """Returns `text` with the output of every command as it is now."""
    interpreter, result = Interpreter(), []
    for block in text.strip("\n").split("\n\n"):
        lines = block.split("\n")
        comments = [line for line in lines if line.startswith("#")]
        commands = [line for line in lines if not line.startswith("#")]
        if not commands:
            result.append(block)
            continue
        stop = commands.index(SEPARATOR) if SEPARATOR in commands else len(commands)
        printed = [interpreter.execute(command) for command in commands[:stop]]
        shown = [text for text in printed if text != "ok"] or ["ok"]
        result.append("\n".join([*comments, *commands[:stop], SEPARATOR, *shown]))
    return "\n\n".join(result) + "\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_protocol_goes_as_the_scenario_says(path):
    expected = path.read_text()
    found = replay(expected)
    if os.environ.get("DISTCKPT_REWRITE_SCENARIOS"):
        path.write_text(found)
    else:
        assert found == expected


def test_there_are_scenarios():
    assert len(list(FOLDER.glob("*.txt"))) >= 20
