"""Every kind of damage that the table of exit codes names, and a call of every command for it."""

from __future__ import annotations

import os
import shutil

from click.testing import CliRunner

from distckpt.cli import main

from .conftest import owned_by


def leftover(run):
    folder = run / "ckpt-6.pending-00000001-000006-ab"
    folder.mkdir()
    (folder / "probe").write_text("x" * 100)


def empty(run):
    shutil.rmtree(run)
    run.mkdir()


def foreign(run):
    empty(run)
    (run / "notes.txt").write_text("x")
    (run / "checkpoint").write_bytes(b"\xff\x00")
    (run / "images").mkdir()


def a_file(run):
    shutil.rmtree(run)
    run.write_text("x")


def of_another_kind(run):
    """A folder in the place of the manifest."""
    (run / "ckpt-5.manifest.json").unlink()
    (run / "ckpt-5.manifest.json").mkdir()


def edited(run):
    path = run / "ckpt-5.manifest.json"
    path.write_text(path.read_text().replace('"loss": 0.2', '"loss": 0.0'))


def deleted_by_tensorflow(run):
    """What TensorFlow's manager leaves of a checkpoint of ours that it has deleted."""
    (run / "ckpt-5.index").unlink()
    (run / DATA).unlink()
    state = (run / "checkpoint").read_text().splitlines(keepends=True)
    kept = [line.replace("ckpt-5", "ckpt-4") for line in state if 'paths: "ckpt-5"' not in line]
    times = [line for line in kept if "timestamps" in line]
    (run / "checkpoint").write_text("".join(line for line in kept if line != times[-1]))


DATA = "ckpt-5.data-00000-of-00001"
# Rows of the table in docs/exit_codes.md, each with what makes it: all about ckpt-5, the newest.
KINDS = {
    "nothing is wrong": [lambda run: None],
    "a manifest is damaged": [
        lambda run: (run / "ckpt-5.manifest.json").write_text("{"),
        lambda run: (run / "ckpt-5.manifest.json").write_text('{"format": "distckpt-manifest"}'),
        lambda run: (run / "ckpt-5.manifest.json").write_bytes(b"\xff\xfe"),
        lambda run: (run / "ckpt-5.manifest.json").write_text("[1]"),
        lambda run: (run / "ckpt-5.manifest.json").write_text("[" * 100_000),
        of_another_kind,
        edited,
    ],
    "a data file is cut off or missing": [
        lambda run: os.truncate(run / DATA, 1000),
        lambda run: (run / DATA).unlink(),
    ],
    "TensorFlow's manager has deleted a checkpoint": [deleted_by_tensorflow],
    "an index is missing or damaged": [
        lambda run: (run / "ckpt-5.index").unlink(),
        lambda run: (run / "ckpt-5.index").write_bytes(b"abc"),
    ],
    "a dead job has left something over": [leftover],
    "the directory is empty": [empty],
    "the directory has only other files": [foreign],
    "the directory does not exist": [shutil.rmtree],
    "a file is in its place": [a_file],
}
COMMANDS = {
    "ls": lambda run: ["ls", run, "--why"],
    "watch": lambda run: ["watch", run, "--for", "0"],
    "timeline": lambda run: ["timeline", run],
    "prune": lambda run: ["prune", run, "--max-to-keep", "4", "--yes"],
    "show": lambda run: ["show", run / "ckpt-5"],
    "verify": lambda run: ["verify", run / "ckpt-5"],
    "diff": lambda run: ["diff", run / "ckpt-5", run / "ckpt-5"],
    "export": lambda run: ["export", run / "ckpt-5", run.parent / "out"],
    "pin": lambda run: ["pin", run / "ckpt-5"],
    "import": lambda run: ["import", run / "ckpt-5"],
    "rollback": lambda run: ["rollback", run, "ckpt-5", "--yes"],
    "gc": lambda run: ["gc", run],
    "unpin": lambda run: ["unpin", run / "ckpt-5"],
    "doctor": lambda run: ["doctor", run],
}
# Commands that mean the newest checkpoint if a directory is named.
OF_THE_NEWEST = ("show", "verify", "export", "pin")


def prepare(run, command, kind, damage):
    """Does what a call of a command needs, and then the damage."""
    owned_by(run, ended=2.0)
    if command == "unpin":
        call("pin", run / "ckpt-5")
    if command == "import" and kind in ("nothing is wrong", "a dead job has left something over"):
        (run / "ckpt-5.manifest.json").unlink()
    damage(run)


def call(*words):
    """Runs a command in this process; returns click's result."""
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="distckpt")
