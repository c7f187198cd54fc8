"""The chief's word reaches all, in the order of the questions, and does not stay for ever."""

from __future__ import annotations

import pytest

from distckpt.calls.agree_on import ChiefDecisions
from distckpt.coordination.in_process import InProcess, InProcessJob
from distckpt.errors import ConfigurationError, DeadlineExceededError
from distckpt.testing.threads import run_in_threads


def of(job, index, deadline=5.0):
    return ChiefDecisions(job.coordinator(index), "m", deadline)


def test_one_worker_needs_no_word():
    assert ChiefDecisions(InProcess.single(), "m", 5.0).agree_on((1, 2)) == [1, 2]


def test_a_chief_that_does_not_come_is_named():
    with pytest.raises(DeadlineExceededError, match="worker 0"):
        of(InProcessJob(2), 1, 0.3).agree_on(1)


def test_a_worker_may_be_many_questions_behind_the_chief():
    job = InProcessJob(2)
    chief, worker = of(job, 0), of(job, 1)
    for number in range(100):
        assert chief.agree_on(number) == number
    for number in range(100):
        assert worker.agree_on(None) == number


def test_a_worker_that_stays_behind_is_named():
    job = InProcessJob(2)
    chief = of(job, 0, 0.3)
    for number in range(127):
        chief.agree_on(number)
    with pytest.raises(DeadlineExceededError, match="worker 1"):
        chief.agree_on(127)


def test_answers_do_not_stay():
    job = InProcessJob(3)
    most = []

    def ask(index):
        words = of(job, index, 20.0)
        for number in range(2000):
            assert words.agree_on([index, number]) == [0, number]
            if not index:
                most.append(len(job._values))

    run_in_threads(ask, range(3), 60)
    assert len(most) == 2000
    assert max(most) < 200


def test_a_question_that_was_given_up_is_not_asked_again():
    job = InProcessJob(2)
    chief, worker = of(job, 0), of(job, 1, 0.2)
    with pytest.raises(DeadlineExceededError):
        worker.agree_on(0)
    with pytest.raises(TypeError):
        worker.agree_on(object())
    for number in range(3):
        chief.agree_on(number)
    assert worker.agree_on(0) == 2


def test_what_the_chief_cannot_say_is_an_error_on_all():
    job = InProcessJob(2)
    chief, worker = of(job, 0), of(job, 1)
    with pytest.raises(TypeError):
        chief.agree_on({1, 2})
    with pytest.raises(ConfigurationError, match="chief's value"):
        worker.agree_on(1)
