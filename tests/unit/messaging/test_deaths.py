"""A worker that dies or fails while other workers wait for it."""

from __future__ import annotations

import threading

from distckpt.coordination.in_process import InProcessJob
from distckpt.core.protocol import actions
from distckpt.core.protocol.messages import Report
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.messaging import refusals, waiting
from distckpt.messaging.waiting import Waiting

from .jobs import REFUSAL


def test_the_chief_hears_of_trouble_while_it_writes(job):
    chief = job.waiting(0)
    assert chief.for_trouble() is None
    report = Report(2, "h", 1, 0.0, (), (), ())
    job.publish(job.keys.answer(2), report)
    assert chief.for_trouble() is None
    refusals.publish(job.job.coordinator(1), job.keys, 0, REFUSAL)
    assert chief.for_trouble() == actions.Answered(REFUSAL)
    assert chief.for_answer({1, 2}) == actions.Answered(REFUSAL)


def test_the_death_of_a_worker_that_has_answered_is_no_trouble(job):
    chief = job.waiting(0)
    report = Report(2, "h", 1, 0.0, (), (), ())
    job.publish(job.keys.answer(2), report)
    job.job.kill(2, "power")
    assert chief.for_trouble() is None
    assert chief.for_answer({1, 2}) == actions.Answered(report)  # received early, and not lost


def test_the_answer_of_a_dead_worker_is_looked_at_even_if_it_was_not_shared(job):
    job.publish(job.keys.answer(1), REFUSAL)
    job.job.kill(1, "power")
    assert job.waiting(0).for_trouble() == actions.Answered(REFUSAL)


def test_a_death_is_trouble_too(job):
    chief = job.waiting(0)
    job.job.kill(2, "power")
    event = chief.for_trouble()
    assert isinstance(event, actions.Lost)
    assert "worker 2 died (power)" in event.failure.message


def test_a_death_is_noticed_at_once_with_its_reason(job):
    timer = threading.Timer(0.05, job.job.kill, (2, "killed by signal 9"))
    timer.start()
    event = job.waiting(0, deadline=30.0).for_answer({1, 2})
    assert isinstance(event, actions.Lost)
    assert event.failure.kind == "WorkerLostError"
    assert event.failure.worker == 2
    assert "During save() of ckpt-1: worker 2 died (killed by signal 9)" in event.failure.message
    assert "Restart the job" in event.failure.message


def test_all_the_dead_are_named(job):
    job.job.kill(1, "power")
    job.job.kill(2, "signal 9")
    text = job.waiting(0).for_answer({1, 2}).failure.message
    assert "worker 1 died (power); worker 2 died (signal 9)" in text


def test_the_death_of_somebody_who_is_not_waited_for_does_not_matter(job):
    job.job.kill(2, "power")
    job.publish(job.keys.answer(1), REFUSAL)
    assert isinstance(job.waiting(0).for_answer({1}), actions.Answered)
    assert isinstance(job.waiting(1).for_opening(rendezvous=True), actions.TimedOut)


def test_the_last_word_of_a_dead_worker_counts(job):
    job.publish(job.keys.answer(1), REFUSAL)
    job.job.kill(1, "power")
    assert job.waiting(0).for_answer({1, 2}) == actions.Answered(REFUSAL)


def test_the_death_of_the_chief_takes_the_engine_along(job):
    job.job.kill(0, "power")
    event = job.waiting(1).for_outcome()
    assert isinstance(event, actions.Lost)
    assert event.failure.worker == 0
    assert "worker 0 died: power" in event.failure.message
    assert "save() of ckpt-1" in event.failure.message


def test_who_has_died_is_looked_for_after_a_broken_collective(job, monkeypatch):
    monkeypatch.setattr(waiting, "DEATH", 5.0)
    timer = threading.Timer(0.1, job.job.kill, (2, "power"))
    timer.start()
    failure = job.waiting(1, deadline=30.0).for_death()
    assert failure.worker == 2
    assert job.waiting(1, deadline=0.0).for_death() == failure
    alone = Waiting(InProcessJob(1).coordinator(0), job.keys, "save()", Patience(30.0))
    assert alone.for_death() is None


def test_nobody_may_have_died_after_all(job, monkeypatch):
    monkeypatch.setattr(waiting, "DEATH", 0.1)
    assert job.waiting(1, deadline=30.0).for_death() is None
