"""All workers save at the same calls, whatever their clocks say, with few words."""

from __future__ import annotations

import itertools
import threading

import pytest

from distckpt.coordination.in_process import InProcess, InProcessJob
from distckpt.errors import DeadlineExceededError
from distckpt.policies import AtSteps, EverySeconds, EverySteps, TimeBudget
from distckpt.roles import pace as pacing
from distckpt.roles.pace import Agreement, Pace


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    stopped = Clock()
    monkeypatch.setattr(pacing, "time", stopped)
    return stopped


def alone(policy=None, interval=None, last=None, step=None):
    """Returns a function that is a call of save() of a single worker."""
    pace = Pace(step, interval, policy, last)
    agreement = Agreement(InProcess.single(), "m", 5.0)

    def call(*, check=True, in_flight=False, skip=False, fails=False):
        due = pace.due(agreement, check=check, in_flight=in_flight, skip_when_busy=skip)
        if due:
            pace.begun(in_flight=False)
            if fails:
                pace.failed()
        pace.returned()
        return due

    call.pace = pace
    return call


def test_without_a_policy_every_call_saves(clock):
    call = alone()
    assert all(call() for _ in range(5))


def test_calls_are_counted_where_there_is_no_step_counter(clock):
    call = alone(EverySteps(3))
    assert [call() for _ in range(7)] == [False, False, True, False, False, True, False]


def test_the_step_counter_counts(clock):
    steps = iter([3, 9, 10, 11, 25, 26])
    call = alone(EverySteps(10), step=lambda: next(steps))
    assert [call() for _ in range(6)] == [False, False, True, False, True, False]


def test_time_is_counted_from_the_last_save(clock):
    call = alone(EverySeconds(60))
    found = []
    for _ in range(200):
        clock.now += 7.0
        if call():
            found.append(clock.now - 1000.0)
    assert all(60 <= b - a <= 67 for a, b in zip([0, *found], found, strict=False))
    assert len(found) >= 20


def test_a_budget_is_kept(clock):
    call = alone(TimeBudget(0.1))
    spent = 0.0
    for _ in range(2000):
        clock.now += 1.0
        pace = call.pace
        if pace.due(
            Agreement(InProcess.single(), "m", 5.0),
            check=True,
            in_flight=False,
            skip_when_busy=False,
        ):
            clock.now += 3.0
            spent += 3.0
            pace.begun(in_flight=False)
        pace.returned()
    assert 0.08 < spent / (clock.now - 1000.0) <= 0.105  # the first is free


def test_no_budget_allows_a_save_while_one_is_in_flight(clock):
    call = alone(TimeBudget(0.5))
    assert call()
    clock.now += 1000.0
    assert not call(in_flight=True)
    assert call()


def test_a_failed_save_is_tried_again_at_once(clock):
    for call in (alone(EverySteps(3)), alone(EverySeconds(60))):
        clock.now += 61
        while not call(fails=True):
            pass
        assert call()
        assert not call()


def test_a_save_that_is_asked_for_is_made(clock):
    call = alone(EverySteps(100))
    assert call(check=False)
    assert not call()


def test_after_restoring_the_counting_goes_on_from_there(clock):
    steps = iter([137, 138, 150])
    call = alone(EverySteps(50), step=lambda: next(steps))
    call.pace.restored()
    assert [call(), call()] == [False, True]


def test_a_call_is_skipped_and_counted_while_a_save_is_in_flight(clock):
    call = alone()
    assert call(skip=True)
    assert not call(skip=True, in_flight=True)
    assert call(in_flight=True)
    assert call.pace.skipped == 1


class Job:
    """Workers that call save() in step, each with a clock of its own."""

    def __init__(self, workers, policy):
        self.job = InProcessJob(workers)
        self.published = 0
        self.paces = [Pace(None, None, policy, None) for _ in range(workers)]
        self.agreements = [Agreement(self.job.coordinator(n), "m", 5.0) for n in range(workers)]
        chief = self.agreements[0]._coordinator
        publish = chief.publish

        def counting(key, value):
            self.published += 1
            publish(key, value)

        chief.publish = counting

    def call(self, **kwargs):
        """Returns whether the call saves, which all workers must find alike."""
        found = {}

        def work(worker):
            pace = self.paces[worker]
            due = pace.due(self.agreements[worker], check=True, **kwargs[f"w{worker}"])
            found[worker] = (due, pace.skipped)
            if due:
                pace.begun(in_flight=False)
            pace.returned()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(self.paces))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(set(found.values())) == 1, found
        return found[0][0]

    def same(self, **kwargs):
        return self.call(**{f"w{n}": kwargs for n in range(len(self.paces))})


QUIET = {"in_flight": False, "skip_when_busy": False}


def test_steps_alone_need_no_word(clock):
    job = Job(3, EverySteps(5) | AtSteps([2]))
    assert [n for n in range(1, 21) if job.same(**QUIET)] == [2, 5, 10, 15, 20]
    assert job.published == 0


def test_a_policy_of_minutes_needs_few_words(clock):
    job = Job(2, EverySeconds(600))
    found = []
    for number in range(2000):
        clock.now += 1.0
        if job.same(**QUIET):
            found.append(number)
    assert len(found) == 3
    assert all(600 <= b - a <= 605 for a, b in itertools.pairwise(found))
    assert job.published <= 3 * 16


def test_steps_are_heeded_while_the_clock_is_not_asked(clock):
    job = Job(2, EverySteps(10) | EverySeconds(10_000))
    found = []
    for number in range(1, 31):
        clock.now += 1.0
        if job.same(**QUIET):
            found.append(number)
    assert found == [10, 20, 30]
    assert job.published < 15


def test_whether_a_save_is_in_flight_is_for_the_chief_to_say(clock):
    job = Job(2, None)
    busy, free = ({"in_flight": b, "skip_when_busy": True} for b in (True, False))
    assert job.call(w0=free, w1=busy)
    assert not job.call(w0=busy, w1=free)
    assert job.paces[1].skipped == 1


def test_a_chief_that_does_not_come_is_named():
    job = InProcessJob(2)
    agreement = Agreement(job.coordinator(1), "m", 0.3)
    pace = Pace(None, None, EverySeconds(60), None)
    with pytest.raises(DeadlineExceededError, match="worker 0"):
        pace.due(agreement, check=True, **QUIET)


def test_decisions_that_all_have_heard_are_forgotten(clock):
    job = Job(2, EverySeconds(1))
    for _ in range(30):
        clock.now += 2.0
        assert job.same(**QUIET)
    chief = job.agreements[0]
    assert chief.asked == job.agreements[1].asked == 30

    def there(number):
        return chief._coordinator.fetch([f"m/pace-{number}/outcome"], 0.0) is not None

    chief.forget(20)
    assert [there(n) for n in (0, 19, 20, 29)] == [False, False, True, True]
    chief.forget(20)
    chief.forget(30)
    assert not there(29)


def test_a_worker_may_be_many_questions_behind_the_chief():
    job = InProcessJob(2)
    chief, worker = (Agreement(job.coordinator(n), "m", 5.0) for n in range(2))
    for number in range(100):
        assert chief.word(lambda n=number: str(n), "agree_on()") == str(number)
    for number in range(100):
        assert worker.word(lambda: "not asked", "agree_on()") == str(number)


def test_a_question_that_the_chief_could_not_answer_is_forgotten_too():
    chief = Agreement(InProcessJob(2).coordinator(0), "m", 5.0)
    with pytest.raises(ZeroDivisionError):
        chief.word(lambda: str(1 / 0), "agree_on()")
    assert chief.word(lambda: "yes", "agree_on()") == "yes"
    chief.forget(2)
    chief.forget(2)
