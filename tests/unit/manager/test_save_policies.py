"""Policies and intervals decide the same on all workers, also after a failure on one."""

from __future__ import annotations

import threading
import time

import pytest

from distckpt.errors import DeadlineExceededError
from distckpt.policies import EverySeconds, EverySteps

from .faults import Broken, bad_metric, unreadable_state
from .programs import Job


@pytest.mark.parametrize("policy", [EverySteps(2), EverySeconds(0.01), None])
@pytest.mark.parametrize("when_busy", ["wait", "skip"])
@pytest.mark.parametrize("counted", ["step_counter", "iterations"])
def test_every_policy_saves_again_after_a_failure_on_one_worker(
    tmp_path, monkeypatch, policy, when_busy, counted
):
    options = {"save_policy": policy, "enable_async": True, "when_busy": when_busy}
    job = Job(2, tmp_path, counted=counted, options={"save_deadline": 20, **options})

    def program(worker):
        for number in range(1, 13):
            worker.train()
            time.sleep(0.005)  # so that seconds pass, by which one of the policies goes
            job.together()
            if worker.index == 1 and number == 4:
                bad_metric(worker, monkeypatch)
            else:
                worker.save()
            if number % 3 == 0:
                worker.sync()
        worker.sync()

    job.run(program)
    steps = set(job.saved().values())
    assert max(steps) >= 10
    assert len(steps) >= 3
    assert job.workers[0].manager.checkpoints == job.workers[1].manager.checkpoints
    assert job.workers[0].manager.skipped_saves == job.workers[1].manager.skipped_saves
    for worker in job.workers:
        assert not any(isinstance(e, DeadlineExceededError) for e in worker.errors), worker.heard


class _FailsOnce(EverySteps):
    def decide(self, moment):
        if moment.step == 3 and threading.current_thread().name == "failing":
            raise Broken("the policy")
        return super().decide(moment)


@pytest.mark.parametrize("where", [0, 1])
def test_a_policy_that_raises_on_one_worker(tmp_path, where):
    options = {"save_policy": _FailsOnce(1), "save_deadline": 20}
    job = Job(2, tmp_path, options=options)

    def program(worker):
        if worker.index == where:
            threading.current_thread().name = "failing"
        for _ in range(5):
            worker.train()
            job.together()
            worker.save()

    job.run(program)
    assert set(job.saved().values()) == {1, 2, 4, 5}
    for worker in job.workers:
        (error,) = worker.errors
        assert "the policy" in str(error)


def test_the_interval_counts_from_what_is_committed(tmp_path, monkeypatch):
    job = Job(2, tmp_path, checkpoint_interval=10, options={"save_deadline": 20})

    def program(worker):
        for number in range(1, 41):
            worker.train()
            job.together()
            if worker.index == 1 and number == 11:
                unreadable_state(worker, monkeypatch)
            else:
                worker.save()

    job.run(program)
    assert sorted(job.saved().values()) == [1, 12, 22, 32]
