"""``distckpt launch`` with a real `tf.distribute.MultiWorkerMirroredStrategy`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import distckpt.launcher

# Sums over both workers; at the first start worker 1 then dies without a word.
TRAINING = """
import os, signal
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
index = strategy.cluster_resolver.task_id

@tf.function
def total():
    def value():
        return tf.constant(float(index + 1))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(value), axis=None)

assert float(total()) == 3.0
print("summed at start", os.environ["DISTCKPT_RESTART"], flush=True)
if os.environ["DISTCKPT_RESTART"] == "0":
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        total()  # hangs or fails for want of worker 1
print("finished", flush=True)
"""


def launch(folder: Path, code: str, *options: str, arguments: tuple[str, ...] = ()):
    """Runs a program by ``distckpt launch``; returns how it ended."""
    program = folder / "train.py"
    program.write_text(code)
    root = str(Path(distckpt.launcher.__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "distckpt", "launch", *options, "--", sys.executable]
    return subprocess.run(
        [*command, str(program), *arguments],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.cluster
def test_a_job_whose_worker_is_killed_succeeds_after_the_restart(tmp_path: Path) -> None:
    logs = str(tmp_path / "logs")
    done = launch(tmp_path, TRAINING, "--workers=2", "--max-restarts=1", "--log-dir", logs)
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if "start 1" in line)
    assert lines == ["[worker 0] summed at start 1", "[worker 1] summed at start 1"]
    assert done.stdout.count("finished") == 2
    assert "restart 1 of 1, because worker 1 (pid " in done.stderr
    assert "was killed by SIGKILL" in done.stderr
    first = (tmp_path / "logs" / "worker-1.restart-0.log").read_text()
    assert "summed at start 0" in first
    assert "finished" not in first
    assert sorted(os.listdir(tmp_path / "logs")) == [
        f"worker-{index}.restart-{restart}.log" for index in range(2) for restart in range(2)
    ]


# Two workers train and save; worker 1 is lost after the second save; the other goes on alone.
ELASTIC = """
import os, signal, sys
import tensorflow as tf
import distckpt

strategy = tf.distribute.MultiWorkerMirroredStrategy()
index = strategy.cluster_resolver.task_id or 0
with strategy.scope():
    step = tf.Variable(0, dtype=tf.int64)
own = tf.random.Generator.from_seed(index)
manager = distckpt.CheckpointManager(
    tf.train.Checkpoint(step=step), sys.argv[1], 3,
    worker_checkpoint=tf.train.Checkpoint(noise=own),
)
manager.restore_or_initialize()
start = os.environ["DISTCKPT_RESTART"]
print(f"start {start}: {manager.worker_count} workers from {int(step.numpy())}", flush=True)
while int(step.numpy()) < 5:
    step.assign_add(1)
    manager.save()
    if start == "0" and index == 1 and int(step.numpy()) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
print("finished", flush=True)
"""


@pytest.mark.cluster
def test_an_elastic_job_goes_on_from_the_checkpoint_with_those_that_are_left(
    tmp_path: Path,
) -> None:
    run = str(tmp_path / "run")
    done = launch(tmp_path, ELASTIC, "--elastic=1:2", "--max-restarts=1", arguments=(run,))
    assert done.returncode == 0, done.stderr
    assert "restart 1 of 1 with 1 worker, because worker 1 (pid " in done.stderr
    assert "[worker 0] start 0: 2 workers from 0" in done.stdout
    assert "[worker 0] start 1: 1 workers from 2" in done.stdout
    assert "worker_checkpoint start afresh on worker 0: noise" in done.stderr
    assert done.stdout.count("finished") == 1


# The chief alone calls save(). Only the second start commits something before.
CHIEF_ALONE = """
import os, sys
import tensorflow as tf
import distckpt

strategy = tf.distribute.MultiWorkerMirroredStrategy()
index = strategy.cluster_resolver.task_id
with strategy.scope():
    step = tf.Variable(0, dtype=tf.int64)
manager = distckpt.CheckpointManager(
    tf.train.Checkpoint(step=step), sys.argv[1], 3,
    options=distckpt.ManagerOptions(save_deadline=2.0, restore_deadline=60.0),
)
manager.restore_or_initialize()
if os.environ["DISTCKPT_RESTART"] == "1":
    print("saved", manager.save(), flush=True)

@tf.function
def train():
    def value():
        return tf.constant(1.0)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(value), axis=None)

if index == 0:
    manager.save()
train()
"""


@pytest.mark.cluster
def test_a_job_that_commits_nothing_between_two_ends_is_told_from_one_that_does(
    tmp_path: Path,
) -> None:
    run = str(tmp_path / "run")
    done = launch(tmp_path, CHIEF_ALONE, "--workers=2", "--max-restarts=2", arguments=(run,))
    assert done.returncode == 70, done.stderr
    restarts = [line for line in done.stderr.splitlines() if "distckpt launch: restart" in line]
    assert len(restarts) == 2
    assert all("exited with code 69 (another worker was lost" in line for line in restarts)
    assert f"[worker 0] saved {run}/ckpt-1" in done.stdout
    assert f"nothing has been committed to {run} since" in done.stderr
    assert "exited with code 70 (a worker was lost or never came, again" in done.stderr
