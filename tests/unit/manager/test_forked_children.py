"""A forked child: its parent's saves and managers are not its own."""

from __future__ import annotations

import os
import re

import pytest
import tensorflow as tf

from ..kit import warm

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


@pytest.mark.parametrize(
    "in_child", ["pass", "manager.__exit__(None, None, None)", "raise SystemExit(0)"]
)
def test_it_neither_waits_for_it_nor_reports_it(tmp_path, in_child):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("{in_child}", in_child))
    command = [program, tmp_path / "run"]
    done = warm.run(command, env=os.environ, cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr
    assert tf.train.latest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "ckpt-1")


CALLS = {
    "save": "manager.save()",
    "save if": "manager._save_if(None)",
    "sync": "manager.sync()",
    "agree_on": "manager.agree_on(1)",
    "restore": "manager.restore_or_initialize()",
    "has_time_to_save": "manager.has_time_to_save(9.0)",
    "preempted": "manager.preempted(9.0)",
    "leave": "manager.leave()",
}

REFUSED = """
import multiprocessing, os, pathlib, sys
import tensorflow as tf
import distckpt

def found():
    return sorted((str(path), path.stat().st_mtime_ns) for path in run.rglob("*"))

def child(manager):
    for call in sys.argv[3:]:
        try:
            eval(call)
        except distckpt.errors.ConfigurationError as error:
            print("refused", os.getppid(), os.getpid(), error, flush=True)
        else:
            print("done", call, flush=True)
    assert manager.checkpoints == saved
    assert manager.latest_checkpoint == (saved[0] if saved else None)

run = pathlib.Path(sys.argv[1])
told = []
options = distckpt.ManagerOptions(durable=False, listeners=[told.append])
checkpoint = tf.train.Checkpoint(value=tf.Variable(1.0))
with distckpt.CheckpointManager(checkpoint, str(run), 3, options=options) as manager:
    saved = [manager.save()] if sys.argv[2] == "saved" else []
    before = found()
    process = multiprocessing.get_context("fork").Process(target=child, args=(manager,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert found() == before
    assert manager.save() == f"{run}/ckpt-" + ("2" if saved else "1")
    assert manager.agree_on(7) == 7
assert "Preempted" not in [type(event).__name__ for event in told]
"""


@pytest.mark.parametrize("state", ["new", "saved"])
def test_its_parents_manager_refuses_every_call_and_nothing_is_written(tmp_path, state):
    program = tmp_path / "program.py"
    program.write_text(REFUSED)
    command = [program, tmp_path / "run", state, *CALLS.values()]
    done = warm.run(command, env=os.environ, cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(CALLS)
    for line in lines:
        refused = re.match(r"refused (\d+) (\d+) This CheckpointManager belongs to process", line)
        assert refused, line
        assert f"process {refused[1]}, which made it, and not to its child" in line
        assert f"child process {refused[2]}:" in line
