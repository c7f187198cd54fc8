"""All workers save at the same calls, whatever their clocks say, with few words."""

from __future__ import annotations

import itertools

import pytest

from distckpt.calls import save_schedule as pacing
from distckpt.calls.save_schedule import SaveSchedule
from distckpt.core.protocol.messages import Call
from distckpt.core.protocol.moment import NOWHERE
from distckpt.policies import AtSteps, EverySeconds, EverySteps, TimeBudget


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    stopped = Clock()
    monkeypatch.setattr(pacing, "host", stopped)
    return stopped


def lead(schedule, *, check=True, in_flight=False, skip=False):
    """Does what the chief does in a call of save(); returns its entry, None if it makes none."""
    schedule.called(in_flight=in_flight)
    due = schedule.ask(check=check)
    if due is False:
        return None
    save, busy, rest = True, False, 0
    if due is None or skip:
        decision = schedule.decide(check=check, in_flight=in_flight, skip_when_busy=skip)
        save, busy, rest = decision.save, decision.busy, decision.rest_until
    call = Call("save", NOWHERE, save=save, busy=busy, step=schedule.step, rest_until=rest)
    schedule.heed(call)
    return call


def alone(policy=None, interval=None, last=None, step=None):
    """Returns a function that is a call of save() of a single worker."""
    schedule = SaveSchedule(step, interval, policy, last)

    def call(*, fails=False, **how):
        entry = lead(schedule, **how)
        due = entry is not None and entry.save
        if due and not fails:
            schedule.saved(entry, in_flight=False)
        schedule.returned()
        return due

    call.schedule = schedule
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


def test_calls_at_the_same_step_do_not_let_the_clock_wait_for_more_steps(clock):
    """As when two threads call ``save()``, or when a call is repeated."""
    at = [0]
    call = alone(EverySeconds(60), step=lambda: at[0])
    found = []
    for _ in range(200):
        at[0] += 1
        clock.now += 7.0
        for _ in range(3):
            clock.now += 0.001
            if call():
                found.append(clock.now - 1000.0)
    assert all(60 <= b - a <= 67 for a, b in zip([0, *found], found, strict=False))
    assert len(found) >= 20


def test_some_long_steps_do_not_let_the_clock_wait_for_more_steps(clock):
    """As when every tenth step has an evaluation."""
    call = alone(EverySeconds(60))
    found = []
    for number in range(2000):
        clock.now += 10.0 if number % 10 == 9 else 0.1
        if call():
            found.append(clock.now - 1000.0)
    assert all(60 <= b - a <= 75 for a, b in zip([0, *found], found, strict=False))
    assert len(found) >= 20


def test_a_budget_is_kept(clock):
    call = alone(TimeBudget(0.1))
    spent = 0.0
    for _ in range(2000):
        clock.now += 1.0
        schedule = call.schedule
        entry = lead(schedule)
        if entry is not None and entry.save:
            clock.now += 3.0
            spent += 3.0
            schedule.saved(entry, in_flight=False)
        schedule.returned()
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
    call.schedule.restored()
    assert [call(), call()] == [False, True]


def test_a_call_is_skipped_and_counted_while_a_save_is_in_flight(clock):
    call = alone()
    assert call(skip=True)
    assert not call(skip=True, in_flight=True)
    assert call(in_flight=True)
    assert call.schedule.skipped == 1


class Job:
    """Workers that call save() in step, each with a clock of its own."""

    def __init__(self, workers, policy):
        self.published = 0
        self.paces = [SaveSchedule(None, None, policy, None) for _ in range(workers)]

    def call(self, **kwargs):
        """Returns whether the call saves, which all workers must find alike."""
        chief, *others = self.paces
        entry = lead(chief, **kwargs["w0"])
        due = entry is not None and entry.save
        asked = 0
        for number, schedule in enumerate(others, 1):
            how = kwargs[f"w{number}"]
            schedule.called(in_flight=how["in_flight"])
            if schedule.ask(check=True) is False:
                assert not due
                continue
            assert entry is not None, "it waits for an entry that never comes"
            asked += 1
            schedule.heed(entry)
        self.published += bool(asked)
        for schedule in self.paces:
            if due:
                schedule.saved(entry, in_flight=False)
            schedule.returned()
        assert len({schedule.skipped for schedule in self.paces}) == 1
        return due

    def same(self, **kwargs):
        return self.call(**{f"w{n}": kwargs for n in range(len(self.paces))})


QUIET = {"in_flight": False}


def test_steps_alone_need_no_word(clock):
    job = Job(3, EverySteps(5) | AtSteps([2]))
    assert [n for n in range(1, 21) if job.same(**QUIET)] == [2, 5, 10, 15, 20]


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
    busy, free = ({"in_flight": b, "skip": True} for b in (True, False))
    assert job.call(w0=free, w1=busy)
    assert not job.call(w0=busy, w1=free)
    assert job.paces[1].skipped == 1


def test_who_made_one_call_more_counts_as_the_chief_does_from_the_next_entry_on(clock):
    job = Job(2, EverySteps(3))
    job.paces[1].called(in_flight=False)
    job.paces[1].returned()
    chief, worker = job.paces
    for _ in range(2):
        assert lead(chief) is None
        worker.called(in_flight=False)
    entry = lead(chief)
    assert entry.step == 3
    worker.called(in_flight=False)
    worker.count_as(entry)
    assert worker.step == 3


def test_a_failure_in_the_background_frees_its_step_when_it_is_heard(clock):
    steps = iter([10, 11, 12, 13, 14, 15])
    schedule = SaveSchedule(lambda: next(steps), 5, None, None)
    schedule.called(in_flight=False)
    begun = Call("save", NOWHERE, save=True, background=True, step=10)
    schedule.heed(begun)
    schedule.saved(begun, in_flight=True)
    schedule.called(in_flight=True)
    assert schedule.ask(check=True) is False
    schedule.failed()
    schedule.called(in_flight=False)
    assert schedule.ask(check=True)
