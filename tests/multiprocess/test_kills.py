"""kill -9 of a worker or of the chief in the middle of writing, for real; then restart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import tensorflow as tf

from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage

from ..unit.kit.warm import WarmCluster

pytestmark = pytest.mark.cluster

TRAIN = str(Path(__file__).with_name("train.py"))
ROWS = 24 * 1024  # 96 MiB, so that writing takes long enough to be hit


def cluster(directory, log, steps, workers=3, in_background=False):
    env = {"DIRECTORY": str(directory), "LOG": str(log), "STEPS": str(steps), "ROWS": str(ROWS)}
    env["ASYNC"] = str(int(in_background))
    return WarmCluster([TRAIN], workers=workers, env={**env, "TF_CPP_MIN_LOG_LEVEL": "3"})


def await_writing(job, directory, shard, number, deadline=90.0):
    """Waits until worker `shard` is writing its part of checkpoint `number`."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if any(directory.glob(f"ckpt-{number}.pending-*/shard-{shard:05d}-*")):
            return
        ended = [p.index for p in job.processes if p.returncode is not None]
        assert not ended, job.output(ended[0])
        time.sleep(0.0005)
    raise AssertionError(f"worker {shard} never wrote checkpoint {number}")


def acknowledged(log):
    """The last step that any worker knows to be saved."""
    lines = [line for path in log.iterdir() for line in path.read_text().splitlines()]
    return max((int(line.split()[0]) for line in lines), default=0)


@pytest.mark.parametrize("in_background", [False, True], ids=["blocking", "asynchronous"])
@pytest.mark.parametrize("victim", [0, 1], ids=["chief", "worker"])
def test_kill_9_while_writing_loses_nothing(tmp_path, victim, in_background):
    directory, log = tmp_path / "run", tmp_path / "log"
    log.mkdir()
    with cluster(directory, log, steps=50, in_background=in_background) as job:
        await_writing(job, directory, victim, 3)
        job.kill(victim)
        killed_at = time.monotonic()
        survivors = [i for i in range(3) if i != victim]
        while any(job.processes[i].returncode is None for i in survivors):
            assert time.monotonic() < killed_at + 60, "the others hang: " + job.output(survivors[0])
            job.poll(0.2)
        texts = [job.output(i) for i in survivors]
    name = "worker 0" if victim == 0 else "worker 1"
    assert any(name in text for text in texts), texts
    assert any("WorkerLostError" in t or "CommitUnknownError" in t for t in texts), texts

    saved = acknowledged(log)
    assert saved >= (1 if in_background else 2)
    latest = tf.train.latest_checkpoint(str(directory))
    assert int(latest.rpartition("-")[2]) >= saved
    Verifier(LocalStorage(), str(directory)).verify(Path(latest).name)

    with cluster(directory, log, saved + 2, workers=2, in_background=in_background) as job:
        results = job.wait(120)
        outputs = [job.output(i) for i in range(2)]
    assert [r.returncode for r in results] == [0, 0], outputs
    for output in outputs:
        resumed = int(output.split("resumed ")[1].split()[0])
        assert resumed >= saved
        assert f"resumed {resumed} equal True" in output
    left = [p.name for p in directory.iterdir() if "pending" in p.name]
    assert left == []
    assert not any((directory / ".distckpt").rglob("abandoned/*"))
