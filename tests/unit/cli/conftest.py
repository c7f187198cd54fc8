"""Runs `distckpt` on copies of a directory that a real manager has written."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest
import tensorflow as tf

import distckpt
from distckpt import keep

from ..kit import command
from ..kit.command import SCRIPT  # noqa: F401

VALUES = 20_000


class Shell:
    """Runs ``distckpt``."""

    def __call__(self, *arguments, code=0, **options):
        """Returns what the command printed; its exit code must be `code`."""
        done = self.run(*arguments, **options)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *arguments, code=0):
        return json.loads(self(*arguments, "--json", code=code))

    run = staticmethod(command.run)


@pytest.fixture(scope="session")
def shell():
    return Shell()


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """ckpt-1 to ckpt-5 at steps 10 to 50, saved by a manager that keeps three and the best."""
    directory = tmp_path_factory.mktemp("cli") / "run"
    step, values = tf.Variable(0, dtype=tf.int64), tf.Variable(tf.range(float(VALUES)))
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(step=step, values=values),
        directory,
        3,
        step_counter=step,
        options=distckpt.ManagerOptions(durable=False, keep=keep.Best(1, "loss")),
    )
    for number, loss in enumerate([0.5, 0.1, 0.3, 0.4, 0.2], start=1):
        step.assign(10 * number)
        values.assign_add(tf.ones(VALUES))
        manager.save(metrics={"loss": loss})
    return directory


@pytest.fixture
def run(template, tmp_path):
    """A copy of the template: ckpt-2 to ckpt-5, whose job has ended in peace."""
    copy = tmp_path / "run"
    shutil.copytree(template, copy)
    owned_by(copy, ended=2.0)
    return copy


@pytest.fixture
def buffered():
    """An environment in which Python notices that nobody reads any more (not so with -u)."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}


def owned_by(directory, host="elsewhere", pid=1, ended=None, term=1):
    """Lets the directory's last owner be another process."""
    who = {"host": host, "pid": pid, "since": 1.0}
    if ended is not None:
        who["ended"] = ended
    path = pathlib.Path(directory) / ".distckpt" / "terms" / f"{term:08d}.json"
    path.write_text(json.dumps(who))


def names(directory):
    return sorted(p.name.removesuffix(".index") for p in pathlib.Path(directory).glob("*.index"))


def content(directory):
    """All files below a directory: relative path → bytes."""
    root = pathlib.Path(directory)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def restored(path):
    """Returns step and first value of a checkpoint, restored by TensorFlow."""
    step, values = tf.Variable(0, dtype=tf.int64), tf.Variable(tf.zeros(VALUES))
    tf.train.Checkpoint(step=step, values=values).restore(str(path)).expect_partial()
    return int(step), float(values[0])


def flip(path, offset=100):
    """Flips one bit of a file."""
    data = bytearray(pathlib.Path(path).read_bytes())
    data[offset] ^= 1
    pathlib.Path(path).write_bytes(data)
