"""What the chief of a large job does while it waits: counted, not timed.

The service can wait for only one key at a time, like TensorFlow's.
"""

from __future__ import annotations

import importlib
import pathlib
import random
import threading

import pytest

from distckpt.core.protocol import actions, messages
from distckpt.core.protocol.messages import Refusal, Report
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import Failure
from distckpt.messaging import refusals
from distckpt.messaging.keys import Keys
from distckpt.messaging.waiting import Waiting

from ..kit.eventually import eventually

WORKERS = 512
MOST_THREADS = 8
KEYS = Keys("m", "call", 0)
BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


class Job:
    def __init__(self, module):
        self.service = module.OneKeyService()
        self.chief = module.OneKeyCoordinator(self.service, 0, WORKERS)
        self._module = module

    def worker(self, index):
        return self._module.OneKeyCoordinator(self.service, index, WORKERS)

    def waiting(self, deadline=60.0):
        return Waiting(self.chief, KEYS, "save() of ckpt-1", Patience(deadline))

    def answer(self, worker):
        report = messages.to_json(Report(worker, "h", 1, 0.0, (), (), ()))
        self.service.set(worker, KEYS.answer(worker), report)


@pytest.fixture
def job(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    job = Job(importlib.import_module("one_key_service"))
    yield job
    job.chief.close()
    for key in list(job.service._open):
        job.service.set(0, key, "-")  # lets every thread end


def take(waiting, missing):
    """Takes answers until all are there, or something else happens."""
    missing = set(missing)
    while missing:
        event = waiting.for_answer(missing)
        if not isinstance(event, actions.Answered) or isinstance(event.answer, Refusal):
            return event
        missing.discard(event.answer.worker)
    return None


def test_a_few_threads_take_any_number_of_answers_with_a_call_for_each(job):
    workers = list(range(1, WORKERS))
    random.Random(1).shuffle(workers)
    late, early = workers[:100], workers[100:]

    def answer_late():
        for worker in late:
            job.answer(worker)

    for worker in early:
        job.answer(worker)
    timer = threading.Timer(0.3, answer_late)
    timer.start()
    assert take(job.waiting(), workers) is None
    timer.join()
    assert job.chief.crew.most <= MOST_THREADS
    assert job.service.calls[0] <= 1.2 * WORKERS


def test_answers_are_taken_although_the_first_workers_are_late(job):
    for worker in range(10, WORKERS):
        job.answer(worker)
    waiting = job.waiting()
    done = set()
    while len(done) < WORKERS - 10:
        done.add(waiting.for_answer(set(range(1, WORKERS)) - done).answer.worker)
    assert job.service.calls[0] <= 1.2 * WORKERS
    assert job.chief.crew.most <= MOST_THREADS


def test_a_refusal_of_the_last_worker_is_found_at_once_while_all_others_are_silent(job):
    found = []
    thread = threading.Thread(target=lambda: found.append(take(job.waiting(), range(1, WORKERS))))
    thread.start()
    eventually(lambda: job.service._open)
    last = WORKERS - 1
    refusal = Refusal(last, Failure("StorageFullError", "full", last))
    refusals.publish(job.worker(last), KEYS, 0, refusal)
    before = job.service.calls[0]
    thread.join(30)
    assert found == [actions.Answered(refusal)]
    assert job.service.calls[0] <= before + 10
    assert job.chief.crew.most <= MOST_THREADS


def test_while_it_writes_the_chief_looks_at_one_key_for_all_workers(job):
    waiting = job.waiting()
    for _ in range(20):
        assert waiting.for_trouble() is None
    assert job.service.calls[0] == 1
    refusals.publish(job.worker(7), KEYS, 0, Refusal(7, Failure("StorageFullError", "full", 7)))
    eventually(lambda: waiting.for_trouble() is not None)


def test_silent_workers_cost_few_calls(job, monkeypatch):
    """A call that is given up stays open, so it must not be repeated often."""
    event = take(job.waiting(deadline=3.0), range(1, WORKERS))
    assert isinstance(event, actions.TimedOut)
    assert job.service.calls[0] <= 3.5 * WORKERS  # once each in time, then in the error
    assert job.chief.crew.most <= MOST_THREADS


def test_at_the_deadline_exactly_those_are_named_that_have_not_answered(job):
    silent = {1, 2, 3, 4, 5, 300}
    for worker in set(range(1, WORKERS)) - silent:
        job.answer(worker)
    event = take(job.waiting(deadline=2.0), range(1, WORKERS))
    assert isinstance(event, actions.TimedOut)
    text, _, _ = event.failure.message.partition("done their part")
    assert "worker 300" in text
    assert "worker 299" not in text


def test_a_death_is_noticed_without_a_look_at_all_keys(job):
    waiting = job.waiting()
    found = []
    thread = threading.Thread(target=lambda: found.append(take(waiting, range(1, WORKERS))))
    thread.start()
    eventually(lambda: job.service._open)
    job.service.lost[500] = "power"
    before = job.service.calls[0]
    thread.join(30)
    assert "worker 500 died (power)" in found[0].failure.message
    assert job.service.calls[0] <= before + WORKERS / 4


def test_readies_of_all_workers_take_a_call_each(job):
    for worker in range(1, WORKERS):
        job.service.set(worker, KEYS.ready(worker), "plan")
    waiting, missing = job.waiting(), set(range(1, WORKERS))
    while missing:
        missing.discard(waiting.for_ready(missing).worker)
    assert job.service.calls[0] <= 1.3 * WORKERS
    assert job.chief.crew.most <= MOST_THREADS


def test_the_end_of_a_call_frees_the_thread_that_waits_for_refusals(job):
    for _ in range(20):
        waiting = job.waiting()
        assert waiting.for_trouble() is None
        waiting.end()
    eventually(lambda: job.chief.crew._waiting == 0)
