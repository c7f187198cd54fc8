"""Each command on each kind of damage: its exit code is the documented one, its text is clean."""

from __future__ import annotations

import collections
import json
import re
import shutil
from pathlib import Path

import pytest

from distckpt.cli import main

from .damages import COMMANDS, KINDS, OF_THE_NEWEST, call, prepare

PAGE = Path(__file__).parents[3] / "docs" / "exit_codes.md"
CASES = [
    pytest.param(kind, damage, id=f"{kind} {number}")
    for kind, damages in KINDS.items()
    for number, damage in enumerate(damages)
]
# Then another checkpoint is the newest.
DELETED = "TensorFlow's manager has deleted a checkpoint"
# What Python calls an exception, and how it prints one of the operating system.
PYTHON = re.compile(
    r"\b[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b|Errno|Traceback|__\w+__|\bNone\b"
)


def documented():
    """Returns the table: kind → command → code."""
    page = PAGE.read_text()
    table = page[page.index("## Commands") :]
    head, _, *rows = re.findall(r"^\|.*\|$", table, re.M)
    groups = [re.findall(r"`([a-z]+)`", cell) for cell in _cells(head)[1:]]
    codes = {}
    for row in rows:
        kind, *cells = _cells(row)
        codes[kind] = {
            command: cell.split(":")[0]
            for group, cell in zip(groups, cells, strict=True)
            for command in group
        }
    return codes


def _cells(row):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


TABLE = documented()


def test_the_table_has_all_commands_and_kinds():
    every = set(main.commands) - {"launch"}
    assert all(set(row) == every for row in TABLE.values())
    assert set(COMMANDS) == every
    assert set(KINDS) <= set(TABLE)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("kind", "damage"), CASES)
def test_each_command_ends_with_the_documented_code(template, tmp_path, command, kind, damage):
    for options in ([], ["--json"]):
        run = tmp_path / ("json" if options else "text") / "run"
        shutil.copytree(template, run)
        prepare(run, command, kind, damage)
        done = call(*COMMANDS[command](run), *options)
        assert str(done.exit_code) == TABLE[kind][command], done.output
        if not options:
            check_text(done.output)
        elif done.stdout:
            check_json(command, done)
        else:
            assert done.exit_code in (1, 2)
            assert done.stderr.startswith(("Error: ", "Warning: "))


@pytest.mark.parametrize("command", OF_THE_NEWEST)
@pytest.mark.parametrize(("kind", "damage"), [c for c in CASES if c.values[0] != DELETED])
def test_a_directory_means_its_newest_checkpoint_even_if_it_is_damaged(
    template, tmp_path, command, kind, damage
):
    run = tmp_path / "run"
    shutil.copytree(template, run)
    prepare(run, command, kind, damage)
    _, _, *more = COMMANDS[command](run)
    done = call(command, run, *more)
    assert str(done.exit_code) == TABLE[kind][command], done.output
    check_text(done.output)


@pytest.mark.parametrize("command", OF_THE_NEWEST)
def test_what_tensorflow_has_deleted_is_not_the_newest(template, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(template, run)
    prepare(run, command, DELETED, KINDS[DELETED][0])
    _, _, *more = COMMANDS[command](run)
    done = call(command, run, *more)
    assert done.exit_code == 0, done.output
    assert "ckpt-5" not in done.output


def check_text(text):
    """No exception of Python, no sentence twice, and correct plurals."""
    assert not PYTHON.search(text), text
    lines = [line for line in text.splitlines() if line.strip()]
    sentences = collections.Counter(re.split(r"(?<=[.!?:]) ", " ".join(lines)))
    twice = [s for s, n in sentences.items() if n > 1 and len(s) > 40]
    assert not twice, text
    assert not re.search(r"\b1 (checkpoints|tensors|workers|bytes)\b|\.\.(\s|$)|  $", text), text


def check_json(command, done):
    documents = done.stdout.splitlines() if command == "watch" else [done.stdout]
    for document in documents:
        found = json.loads(document)
        assert isinstance(found, dict)
        assert "Error" not in document
