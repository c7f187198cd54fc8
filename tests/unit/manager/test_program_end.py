"""A program that ends while a save runs in the background."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import tensorflow as tf

from .conftest import value

PROGRAM = """
import multiprocessing, os, sys, threading, time
import tensorflow as tf
import distckpt
from distckpt.storage.local import LocalStorage

class Slow(LocalStorage):
    def write(self, path, data, *, durable):
        time.sleep(0.3)
        if {fails}:
            raise OSError(28, "No space left on device")
        super().write(path, data, durable=durable)

def work():
    import distckpt.manager.checkpoint_manager
    distckpt.manager.checkpoint_manager.storage_for = lambda directory: Slow()
    checkpoint = tf.train.Checkpoint(value=tf.Variable(7.0))
    options = distckpt.ManagerOptions(enable_async=True)
    manager = distckpt.CheckpointManager(checkpoint, {directory!r}, 3, options=options)
    manager.save()
    {end}

if __name__ == "__main__":
    {start}
"""

ENDS = {
    "returns": ("pass", 0),
    "raises": ("1 // 0", 1),
    "exits": ("sys.exit()", 0),
    "exits with 3": ("sys.exit(3)", 3),
}


def run(tmp_path, end, *, fails, start="work()"):
    file = tmp_path / "program.py"
    directory = str(tmp_path / "run")
    text = PROGRAM.format(fails=fails, directory=directory, end=end, start=start)
    file.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, timeout=400, check=False
    )


@pytest.mark.parametrize("end", list(ENDS))
def test_a_program_finishes_its_save_before_it_ends(tmp_path, end):
    code, status = ENDS[end]
    done = run(tmp_path, code, fails=False)
    assert done.returncode == status, done.stderr
    assert value(tf.train.latest_checkpoint(tmp_path / "run")) == 7.0


@pytest.mark.parametrize("end", list(ENDS))
def test_a_program_whose_last_save_failed_does_not_end_well(tmp_path, end):
    done = run(tmp_path, f"print('said before'); {ENDS[end][0]}", fails=True)
    assert done.returncode not in (0, None)
    assert "save() of ckpt-1 failed in the background" in done.stderr
    assert "No space left on device" in done.stderr
    assert done.stdout == "said before\n"


def test_a_program_that_was_told_of_the_failure_ends_as_it_likes(tmp_path):
    end = "\n    ".join(
        ["try:", "    manager.sync()", "except distckpt.errors.DistckptError:", "    pass"]
    )
    assert run(tmp_path, end, fails=True).returncode == 0


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_child_of_multiprocessing_ends_in_the_same_way(tmp_path, method, fails):
    start = (
        f"child = multiprocessing.get_context({method!r}).Process(target=work); child.start(); "
        "child.join(); sys.exit(child.exitcode)"
    )
    done = run(tmp_path, "pass", fails=fails, start=start)
    assert done.returncode == int(fails), done.stderr
    if not fails:
        assert value(tf.train.latest_checkpoint(tmp_path / "run")) == 7.0
