"""Waiting for messages: what arrives, and what happens at the deadline."""

from __future__ import annotations

import threading
import time

from distckpt.core.protocol import actions
from distckpt.core.protocol.messages import Opening, Outcome, Proposal, Refusal, Rendezvous, Verdict
from distckpt.errors import Failure

from .jobs import REFUSAL

OPENING = Opening("a", "ckpt-1", "/d", "f", "t")


def test_the_chief_gets_an_answer(job):
    job.publish(job.keys.answer(1), REFUSAL)
    assert job.waiting(0).for_answer({1, 2}) == actions.Answered(REFUSAL)


def test_the_chief_hears_who_has_come(job):
    job.publish(job.keys.ready(2), "print")
    assert job.waiting(0).for_ready({1, 2}) == actions.Ready(2, "print")


def test_the_chief_hears_of_a_refusal_while_it_waits_for_others_to_come(job):
    job.publish(job.keys.answer(1), REFUSAL)
    assert job.waiting(0).for_ready({1, 2}) == actions.Answered(REFUSAL)


def test_a_worker_gets_the_opening(job):
    job.publish(job.keys.opening, OPENING)
    assert job.waiting(1).for_opening(rendezvous=False) == actions.Opened(OPENING)


def test_a_worker_that_comes_too_late_gets_the_outcome_and_does_not_begin(job):
    outcome = Outcome(Failure("DeadlineExceededError", "too late", 1))
    job.publish(job.keys.rendezvous, Rendezvous("f", True))
    job.publish(job.keys.opening, OPENING)
    job.publish(job.keys.outcome, outcome)
    assert job.waiting(1).for_opening(rendezvous=True) == actions.Told(outcome)


def test_the_rendezvous_comes_before_the_opening(job):
    job.publish(job.keys.rendezvous, Rendezvous("f", True))
    job.publish(job.keys.opening, OPENING)
    assert job.waiting(1).for_opening(rendezvous=True) == actions.Called(Rendezvous("f", True))
    assert job.waiting(1).for_opening(rendezvous=False) == actions.Opened(OPENING)


def test_of_two_rendezvous_the_first_is_in_force(job):
    job.publish(job.keys.rendezvous, Rendezvous("", False))
    job.publish(job.keys.rendezvous, Rendezvous("f", True))
    assert job.waiting(0).for_rendezvous() == actions.Called(Rendezvous("", False))


def test_a_worker_gets_the_outcome(job):
    outcome = Outcome(None, "ckpt-1", (("ckpt-1", 1.5),), 0.5)
    job.publish(job.keys.outcome, outcome)
    assert job.waiting(1).for_outcome() == actions.Told(outcome)


def test_steps_and_verdicts_of_a_restore(job):
    job.publish(job.keys.step(0), Proposal("verify", "ckpt-1", "/d"))
    assert job.waiting(1).for_step(0) == Proposal("verify", "ckpt-1", "/d")
    job.publish(job.keys.verdict(0, 2), Verdict(2))
    assert job.waiting(0).for_verdict(0, {1, 2}) == Verdict(2)
    job.publish(job.keys.outcome, Outcome(None, "ckpt-1"))
    assert job.waiting(1).for_step(1) == Outcome(None, "ckpt-1")


def test_one_hears_each_worker_at_each_step_of_its_own(job):
    """The keys of each step are made once, and must not be mixed up with those of another."""
    chief = job.waiting(0, deadline=10.0)
    for worker in (2, 1):
        job.publish(job.keys.ready(worker), f"print-{worker}")
        job.publish(job.keys.answer(worker), Refusal(worker, REFUSAL.failure))
        for step in (0, 1):
            job.publish(job.keys.verdict(step, worker), Verdict(worker, damaged=step == 1))
    for worker, workers in ((1, {1, 2}), (2, {2}), (1, {1})):
        assert chief.for_ready(workers) == actions.Ready(worker, f"print-{worker}")
        assert chief.for_answer(workers).answer.worker == worker
        assert chief.for_verdict(0, workers) == Verdict(worker)
        assert chief.for_verdict(1, workers) == Verdict(worker, damaged=True)


def test_what_arrives_while_waiting_is_noticed_at_once(job):
    timer = threading.Timer(0.05, job.publish, (job.keys.outcome, Outcome(None, "ckpt-1")))
    timer.start()
    started = time.monotonic()
    assert isinstance(job.waiting(1, deadline=30.0).for_outcome(), actions.Told)
    assert time.monotonic() - started < 5.0


def test_a_deadline_names_all_that_are_missing_and_how_far_they_got(job):
    job.publish(job.keys.ready(2), "print")
    event = job.waiting(0).for_answer({1, 2})
    assert isinstance(event, actions.TimedOut)
    assert event.failure.kind == "DeadlineExceededError"
    assert event.failure.worker == 1
    text = event.failure.message
    assert "save() of ckpt-1 was given up after 0.05 s" in text
    assert "worker 1 never came; worker 2 came, but neither finished its part" in text
    assert "raise the deadline" in text


def test_the_chief_that_never_comes_is_named(job):
    event = job.waiting(1).for_opening(rendezvous=True)
    assert isinstance(event, actions.TimedOut)
    assert "worker 0 never came" in event.failure.message


def test_every_wait_has_a_deadline(job):
    chief, worker = job.waiting(0), job.waiting(1)
    for event in (
        chief.for_ready({1, 2}),
        chief.for_answer({1, 2}),
        chief.for_verdict(0, {1, 2}),
        worker.for_rendezvous(),
        worker.for_outcome(),
        worker.for_step(0),
        worker.for_opening(rendezvous=True),
    ):
        assert isinstance(event, actions.TimedOut)


def test_a_deadline_counts_for_the_whole_call(job):
    chief = job.waiting(0, deadline=0.2)
    started = time.monotonic()
    job.publish(job.keys.answer(1), REFUSAL)
    chief.for_answer({1})
    chief.for_answer({2})
    chief.for_answer({2})
    assert time.monotonic() - started < 0.5


def test_a_worker_allows_the_chief_its_whole_deadline_from_the_opening_on(job):
    worker = job.waiting(1, deadline=0.05)
    job.publish(job.keys.opening, OPENING)
    worker.for_opening(rendezvous=True)
    timer = threading.Timer(0.3, job.publish, (job.keys.outcome, Outcome(None)))
    timer.start()
    assert isinstance(worker.for_outcome(), actions.Told)


def test_a_worker_waits_a_little_longer_for_the_verdict_of_a_chief_that_has_come(job):
    """The chief began later, waits for a third worker, and is about to name it."""
    job.publish(job.keys.ready(0), "print")
    outcome = Outcome(Failure("DeadlineExceededError", "worker 2 never came", 2))
    timer = threading.Timer(0.3, job.publish, (job.keys.outcome, outcome))
    timer.start()
    assert job.waiting(1, deadline=0.05).for_opening(rendezvous=True) == actions.Told(outcome)
