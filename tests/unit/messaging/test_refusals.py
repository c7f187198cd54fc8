"""Refusals, which the chief of a large job finds without looking at all answers."""

from __future__ import annotations

import dataclasses

import pytest

from distckpt.core.protocol import actions, messages
from distckpt.core.protocol.moment import Moment
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import StorageFullError, WorkerLostError
from distckpt.messaging import refusals
from distckpt.messaging.waiting import Waiting

from .jobs import REFUSAL


def at(step, worker=1):
    moment = Moment.of(0, {"step": step})
    return dataclasses.replace(REFUSAL, worker=worker, moment=moment)


def of(worker):
    return dataclasses.replace(REFUSAL, worker=worker)


def publish(job, refusal, turn=0):
    coordinator = job.job.coordinator(refusal.worker)
    return refusals.publish(coordinator, job.keys, turn, refusal)


def shared(job, number):
    found = job.job.coordinator(0).fetch([job.keys.refusal(number)], 0)
    return found and messages.answer_from_json(found[1])


def chief(job, step):
    moment = Moment.of(0, {"step": step})
    return Waiting(job.job.coordinator(0), job.keys, "save()", Patience(0.05), moment=moment)


def test_a_refusal_is_the_workers_answer_and_is_shared(job):
    keys = publish(job, REFUSAL, 2)
    assert keys == [job.keys.answer(1, 2), job.keys.refusal(0)]
    assert {job.job.coordinator(0).fetch([key], 0)[1] for key in keys} == {
        messages.to_json(REFUSAL)
    }


def test_one_refusal_that_counts_for_any_moment_is_enough(job):
    publish(job, of(1))
    assert publish(job, of(2)) == [job.keys.answer(2), job.keys.refusal(0)]
    assert publish(job, at(7, 2), 1) == [job.keys.answer(2, 1), job.keys.refusal(0)]
    assert shared(job, 0) == of(1)
    assert shared(job, 1) is None


def test_a_refusal_of_each_moment_is_shared(job):
    publish(job, at(7, 1))
    publish(job, at(7, 2))
    publish(job, at(8, 2), 1)
    publish(job, of(1), 1)
    assert [shared(job, n) for n in range(4)] == [at(7, 1), at(8, 2), of(1), None]


def test_the_chief_looks_behind_a_refusal_of_an_earlier_moment(job):
    publish(job, at(7, 1))
    one = chief(job, 8)
    assert one.for_trouble() is None
    publish(job, at(8, 2))
    assert one.for_trouble() == actions.Answered(at(8, 2))
    assert one.for_ready({1, 2}) == actions.Answered(at(8, 2))
    assert one.for_answer({1, 2}) == actions.Answered(at(8, 2))


def test_an_ignored_refusal_does_not_hide_the_next_answer_of_that_worker(job):
    publish(job, at(7, 1))
    publish(job, at(8, 1), 1)
    assert chief(job, 8).for_answer({1}) == actions.Answered(at(8, 1))


def test_a_worker_shares_refusals_of_a_limited_number_of_moments(job):
    for step in range(refusals.MOST + 3):
        publish(job, at(step), step)
    assert shared(job, refusals.MOST) is None


def test_a_refusal_that_cannot_be_shared_is_an_answer_nevertheless(job, monkeypatch):
    one = job.job.coordinator(1)
    publish_one = one.publish

    def full(key, value):
        if key == job.keys.refusal(0):
            raise StorageFullError("full")
        publish_one(key, value)

    monkeypatch.setattr(one, "publish", full)
    assert refusals.publish(one, job.keys, 0, REFUSAL) == [job.keys.answer(1)]
    assert chief(job, 8).for_answer({1, 2}) == actions.Answered(REFUSAL)


def test_a_refusal_that_cannot_be_published_raises(job):
    job.job.kill(1, "power")
    with pytest.raises(WorkerLostError, match="died"):
        publish(job, REFUSAL)


def test_the_end_of_a_call_forgets_the_key_that_is_still_awaited(job):
    publish(job, at(7, 1))
    publish(job, of(2))
    one = chief(job, 8)
    assert one.for_trouble() == actions.Answered(of(2))
    one.end()
    assert shared(job, 1) is None
    assert {job.keys.refusal(0), job.keys.refusal(1)} <= set(job.keys.all(3))
