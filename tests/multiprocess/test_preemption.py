"""SIGTERM on any worker: one save of one step by all, exit code 75, and on from the next step."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distckpt.launcher import LocalCluster

pytestmark = pytest.mark.cluster
PROGRAM = str(Path(__file__).with_name("preempted.py"))
STEP = re.compile(r"^STEP (\d+) (\S+)$", re.M)
ENV = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "DISTCKPT_GRACE_SECONDS": "60"}


class Ends:
    """How the workers of one start have ended."""

    def __init__(self, cluster, workers):
        self.codes = [worker.returncode for worker in workers]
        self.texts = [cluster.output(worker.index) for worker in workers]
        self.steps = [[(int(n), w) for n, w in STEP.findall(text)] for text in self.texts]
        restored = [re.search(r"RESTORED (\S+) at (\d+)", text) for text in self.texts]
        self.restored = {(found[1], int(found[2])) for found in restored}


def run(directory, steps, strike=None, *, after=25, workers=3, mode=()):
    """Runs the program; `strike` is called with the cluster after so many steps."""
    command = [sys.executable, PROGRAM, str(directory), str(steps), *mode]
    with LocalCluster(command, workers=workers, env=ENV) as cluster:
        if strike is not None:
            deadline = time.monotonic() + 90
            while len(STEP.findall(cluster.output(0))) < after:
                assert time.monotonic() < deadline, cluster.output(0)
                assert not any(w.gone for w in cluster.processes), cluster.output(0)
                time.sleep(0.02)
            strike(cluster)
        return Ends(cluster, cluster.wait(timeout=400))


def test_a_job_that_is_preempted_again_and_again_misses_no_step_and_does_none_twice(tmp_path):
    steps = 150
    first = run(tmp_path, steps, lambda c: c.kill(1, signal.SIGTERM))
    assert first.codes == [75] * 3, first.texts
    ended = {done[-1] for done in first.steps}
    assert len(ended) == 1  # all have saved the same step
    second = run(tmp_path, steps, lambda c: c.signal_all(signal.SIGTERM))
    assert second.codes == [75] * 3, second.texts
    third = run(tmp_path, steps, lambda c: c.kill(0, signal.SIGTERM), mode=["no-time"])
    assert third.codes == [76] * 3, third.texts
    last = {int(n) for text in third.texts for n in re.findall(r"resumes from \S+ckpt-(\d+)", text)}
    assert all("There is no time left to save" in text for text in third.texts)
    fourth = run(tmp_path, steps, lambda c: c.kill(2, signal.SIGTERM), mode=["no-space"], after=5)
    assert fourth.codes == [76] * 3, fourth.texts
    assert all("The save before the end has failed" in text for text in fourth.texts)
    fifth = run(tmp_path, steps)
    assert fifth.codes == [0] * 3, fifth.texts
    assert first.restored == {("None", 0)}
    for before, after in ((first, second), (second, third)):
        saved = before.steps[0][-1][0]
        assert after.restored == {(f"{tmp_path}/ckpt-{saved}", saved)}
        assert {done[0][0] for done in after.steps} == {saved + 1}
    for after in (fourth, fifth):
        (saved,) = last
        assert after.restored == {(f"{tmp_path}/ckpt-{saved}", saved)}
    values = {}  # what has been trained twice has come to the same
    for start in (first, second, third, fourth, fifth):
        for done in start.steps:
            for number, value in done:
                assert values.setdefault(number, value) == value
    assert sorted(values) == list(range(1, steps + 1))


def test_a_single_process(tmp_path):
    ended = run(tmp_path, 1000, lambda c: c.kill(0, signal.SIGTERM), workers=1)
    assert ended.codes == [75], ended.texts
    saved = ended.steps[0][-1][0]
    again = run(tmp_path, saved + 3, workers=1)
    assert again.codes == [0]
    assert [number for number, _ in again.steps[0]] == [saved + 1, saved + 2, saved + 3]


def test_a_maintenance_notice(tmp_path):
    notice = tmp_path / "notice"
    ended = run(
        tmp_path / "run",
        100_000,
        lambda c: notice.write_text(""),
        workers=2,
        mode=["watch", str(notice)],
    )
    assert ended.codes == [75, 75], ended.texts
    assert len({done[-1] for done in ended.steps}) == 1


def test_when_a_worker_dies_while_they_agree_the_others_end(tmp_path):
    def strike(cluster):
        cluster.kill(2, signal.SIGKILL)
        cluster.kill(1, signal.SIGTERM)

    ended = run(tmp_path, 100_000, strike)
    assert ended.codes == [69, 69, -9], ended.texts


def test_under_the_launcher_the_code_says_preempted(tmp_path):
    launch = [sys.executable, "-m", "distckpt", "launch", "--workers", "2"]
    launch += [f"--env={name}={value}" for name, value in ENV.items()]
    process = subprocess.Popen(
        [*launch, "--", sys.executable, PROGRAM, str(tmp_path), "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if "STEP 12 " in line:
                break
        process.send_signal(signal.SIGTERM)
        out, messages = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75, out + messages
