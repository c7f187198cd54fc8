"""Paths in what the commands print are as the user has given them."""

from __future__ import annotations

import os
import subprocess

import pytest

from distckpt.cli import shown_paths

from .conftest import flip, owned_by
from .damages import DATA


@pytest.fixture(autouse=True)
def _forget():
    yield
    shown_paths.forget()


@pytest.mark.parametrize(
    ("given", "text", "shown"),
    [
        ("w", "/a/w has lost /a/w/ckpt-1.index.", "w has lost w/ckpt-1.index."),
        ("../w/", "mv '/a/w/x'/* /a/w/ && rmdir /a/w/x", "mv '../w/x'/* ../w/ && rmdir ../w/x"),
        (".", "There is none in /a/w. Copy /a/w/ckpt-1.index", None),
        ("", "There is none in /a/w. Copy /a/w/ckpt-1.index", None),
        ("w", "/a/word and /b/a/w/x and /a/w-2", "/a/word and /b/a/w/x and /a/w-2"),
        ("/a/w", "/a/w/ckpt-1", "/a/w/ckpt-1"),
    ],
)
def test_only_the_given_path_is_replaced(given, text, shown):
    shown_paths.remember("/a/w", given)
    expected = "There is none in /a/w. Copy ./ckpt-1.index" if shown is None else shown
    assert shown_paths.shown(text) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "run"],
        ["show", "run/ckpt-4"],
        ["show", "run"],
        ["show", "run/ckpt-9"],
        ["show", "run/ckpt-2.index"],
        ["verify", "run", "--all"],
        ["diff", "run/ckpt-5", "run/ckpt-4"],
        ["pin", "run/ckpt-4"],
        ["unpin", "run/ckpt-3"],
        ["unpin", "run"],
        ["prune", "run", "--max-to-keep", "1", "--verify", "--dry-run"],
        ["prune", "run", "--max-to-keep", "1", "--dry-run"],
        ["rollback", "run", "ckpt-5", "--yes"],
        ["rollback", "run", "ckpt-4", "--yes"],
        ["rollback", "run", "ckpt-3", "--yes", "--take-over"],
        ["export", "run/ckpt-4", "out/model"],
        ["export", "run/ckpt-4", "run/model"],
        ["import", "run/ckpt-4"],
        ["gc", "run"],
        ["gc", "run", "--dry-run"],
        ["doctor", "run/ckpt-4"],
        ["timeline", "run/ckpt-4"],
        ["ls", "rin"],
    ],
    ids=" ".join,
)
def test_no_command_mixes_relative_and_absolute_paths(shell, run, words):
    flip(run / DATA, 5000)
    (run / "ckpt-2.index").unlink()
    (run / "ckpt-6.pending-00000001-000006-ab").mkdir()
    owned_by(run)
    done = shell.run(*words, cwd=run.parent)
    assert str(run.parent) not in done.stdout + done.stderr
    assert done.stdout + done.stderr


def test_the_command_that_undoes_a_rollback_works_where_it_was_printed(shell, run):
    shell("rollback", run, "ckpt-3", "--yes")
    for where, name in ((run.parent, "run"), (run, ".")):
        line = shell("ls", name, cwd=where).splitlines()[-1]
        command = line.partition("To bring back ")[2].partition(": ")[2]
        assert str(run.parent) not in command
        subprocess.run(["sh", "-c", command], check=True, cwd=where)
    assert {f"ckpt-{n}.index" for n in (4, 5)} <= set(os.listdir(run))
