"""A child that is forked during a save in the background: the save is its parent's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf

pytestmark = pytest.mark.posix

PROGRAM = """
import os, sys, threading, time
import tensorflow as tf
import distckpt
from distckpt.saving.committer import Committer

merge, go_on = Committer.merge, threading.Event()

def held(self, *arguments):
    assert go_on.wait(120)
    return merge(self, *arguments)

Committer.merge = held
value = tf.Variable(1.0)
options = distckpt.ManagerOptions(enable_async=True, durable=False, save_deadline=60)
checkpoint = tf.train.Checkpoint(value=value)
manager = distckpt.CheckpointManager(checkpoint, sys.argv[1], 3, options=options)
manager.save()
child = os.fork()
if child == 0:
    {in_child}
    sys.exit(0)
end = time.monotonic() + 60
while not (ended := os.waitpid(child, os.WNOHANG))[0]:
    if time.monotonic() > end:
        os.kill(child, 9)
        sys.exit("the child hangs")
    time.sleep(0.05)
go_on.set()
manager.sync()
sys.exit(os.waitstatus_to_exitcode(ended[1]))
"""


@pytest.mark.parametrize("in_child", ["pass", "manager.sync()", "raise SystemExit(0)"])
def test_it_neither_waits_for_it_nor_reports_it(tmp_path, in_child):
    program = PROGRAM.replace("{in_child}", in_child)
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert tf.train.latest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "ckpt-1")
