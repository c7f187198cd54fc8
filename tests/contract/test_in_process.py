from __future__ import annotations

import threading
import time

import pytest

from distckpt import errors
from distckpt.coordination.in_process import InProcess, InProcessJob
from distckpt.testing.coordinator_clauses import WORKERS
from distckpt.testing.coordinator_contract import CoordinatorContract


class TestInProcess(CoordinatorContract):
    @pytest.fixture
    def job(self):
        return InProcessJob(WORKERS)

    @pytest.fixture
    def coordinators(self, job):
        self.job = job
        return [job.coordinator(index) for index in range(WORKERS)]

    def kill(self, coordinators, index):
        self.job.kill(index, "killed by the test")


def test_a_single_worker_is_its_own_chief():
    me = InProcess.single()
    assert (me.index, me.count, me.is_chief) == (0, 1, True)
    me.publish("a", "value")
    assert me.fetch(["a"], 0) == ("a", "value")
    assert me.lost() == {}


def test_jobs_know_nothing_of_each_other():
    InProcess.single().publish("a", "value")
    assert InProcess.single().fetch(["a"], 0) is None


@pytest.mark.parametrize("index", [-1, 2])
def test_a_worker_outside_of_the_job_is_refused(index):
    with pytest.raises(errors.ConfigurationError, match="job of 2"):
        InProcessJob(2).coordinator(index)


def test_a_job_without_workers_is_refused():
    with pytest.raises(errors.ConfigurationError, match="at least one worker"):
        InProcessJob(0)


def test_the_reason_of_a_death_is_passed_on():
    job = InProcessJob(3)
    job.kill(2, "out of memory")
    job.kill(2, "a second death")
    assert job.coordinator(0).lost() == {2: "out of memory"}


def test_a_dead_worker_can_do_nothing_more():
    job = InProcessJob(2)
    job.kill(1, "out of memory")
    with pytest.raises(errors.WorkerLostError, match="worker 1 died: out of memory"):
        job.coordinator(1).publish("a", "from beyond")
    assert job.coordinator(0).fetch(["a"], 0) is None


def test_the_store_dies_with_the_chief():
    job = InProcessJob(2)
    me = job.coordinator(1)
    me.publish("a", "value")
    job.kill(0, "out of memory")
    for call in (lambda: me.publish("b", "value"), lambda: me.fetch(["a"], 0)):
        with pytest.raises(errors.WorkerLostError, match="worker 0 died: out of memory"):
            call()


def test_the_death_of_the_chief_ends_a_wait_at_once():
    job = InProcessJob(2)
    threading.Timer(0.1, job.kill, [0, "out of memory"]).start()
    began = time.monotonic()
    with pytest.raises(errors.WorkerLostError):
        job.coordinator(1).fetch(["never"], 30)
    assert time.monotonic() - began < 5


def test_a_worker_that_leaves_is_reported_and_its_words_stay():
    job = InProcessJob(2)
    chief, other = job.coordinator(0), job.coordinator(1)
    chief.publish("a", "value")
    chief.close()
    assert other.lost() == {0: "it has left the job"}
    assert other.fetch(["a"], 0) == ("a", "value")
