"""Save policies: what each says, how they compose, and that workers without a clock never err."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.errors import ConfigurationError
from distckpt.policies import AtSteps, Clock, EverySeconds, EverySteps, Moment, TimeBudget


def at(step, last=None, elapsed=None, cost=None):
    return Moment(step, last, None if elapsed is None else Clock(elapsed=elapsed, cost=cost))


def saves(policy, steps, last=None):
    """The steps at which a program that calls save() at `steps` saves."""
    found = []
    for step in steps:
        if policy.decide(at(step, last)):
            found.append(step)
            last = step
    return found


def test_every_so_many_steps():
    assert saves(EverySteps(100), range(1, 450)) == [100, 200, 300, 400]
    assert saves(EverySteps(100), range(1, 450, 7)) == [106, 204, 302, 400]
    assert saves(EverySteps(100), range(138, 450), last=137) == [200, 300, 400]
    assert saves(EverySteps(1), [1, 2, 2, 3]) == [1, 2, 3]


def test_at_given_steps():
    assert saves(AtSteps([10, 1, 40]), range(1, 100)) == [1, 10, 40]
    assert saves(AtSteps([10, 1, 40]), range(0, 100, 6)) == [6, 12, 42]
    assert saves(AtSteps([10, 1, 40]), range(11, 100), last=10) == [40]
    assert saves(AtSteps([0]), [0, 1]) == [0]


def test_a_step_counter_that_is_set_back_counts_anew():
    assert saves(EverySteps(100), [250, 300, 20, 90, 100, 150, 200]) == [250, 300, 100, 200]
    assert saves(AtSteps([10, 40]), [41, 5, 9, 10, 11]) == [41, 10]


def test_every_so_many_seconds():
    policy = EverySeconds(60)
    assert policy.decide(at(5)) is None
    assert [policy.decide(at(5, elapsed=e)) for e in (0, 59.9, 60, 1000)] == [0, 0, 1, 1]
    assert policy.rest(Clock(elapsed=20, cost=None)) == 40


def test_a_budget_of_time():
    policy = TimeBudget(0.02)
    assert policy.decide(at(5)) is None
    assert policy.decide(at(5, elapsed=0.0)) is True  # no save's cost is known yet
    assert [policy.decide(at(5, elapsed=e, cost=0.4)) for e in (0, 19.9, 20)] == [0, 0, 1]
    assert policy.rest(Clock(elapsed=5, cost=0.4)) == pytest.approx(15)


def test_they_compose():
    both = EverySteps(10) & TimeBudget(0.1)
    assert both.decide(at(9, 0)) is False  # whatever the clock says
    assert both.decide(at(10, 0)) is None
    assert both.decide(at(10, 0, elapsed=1, cost=5)) is False
    assert both.decide(at(10, 0, elapsed=50, cost=5)) is True
    either = EverySteps(10) | EverySeconds(60)
    assert either.decide(at(10, 0)) is True
    assert either.decide(at(9, 0)) is None
    assert either.decide(at(9, 0, elapsed=61)) is True
    assert repr(both | AtSteps([3])) == (
        "((EverySteps(steps=10) & TimeBudget(fraction=0.1)) | AtSteps(steps=(3,)))"
    )
    assert both == EverySteps(10) & TimeBudget(0.1) != either


def test_how_long_the_clock_has_nothing_to_say():
    clock = Clock(elapsed=10, cost=1.0)
    assert EverySteps(5).rest(clock) is None
    assert (EverySteps(5) & EverySeconds(60)).rest(clock) == 50
    assert (EverySteps(5) | EverySeconds(60)).rest(clock) == 50
    assert (EverySeconds(30) & EverySeconds(60)).rest(clock) == 50
    assert (EverySeconds(30) | EverySeconds(60)).rest(clock) == 20


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: EverySteps(0), "positive number of steps"),
        (lambda: EverySteps(True), "positive number of steps"),
        (lambda: EverySteps(1.5), "positive number of steps"),
        (lambda: AtSteps([]), "one or more step numbers"),
        (lambda: AtSteps(3), "one or more step numbers"),
        (lambda: AtSteps(["3"]), "one or more step numbers"),
        (lambda: EverySeconds(0), "positive number of seconds"),
        (lambda: EverySeconds(math.nan), "positive number of seconds"),
        (lambda: EverySeconds(math.inf), "positive number of seconds"),
        (lambda: TimeBudget(0), "0.02 for 2 %"),
        (lambda: TimeBudget(2), "0.02 for 2 %"),
        (lambda: TimeBudget("2%"), "0.02 for 2 %"),
        (lambda: EverySteps(5) & 3, "two save policies, got 3"),
        (lambda: EverySteps(5) | None, "two save policies, got None"),
        (lambda: EverySteps(5) and AtSteps([3]), "with & and |, not with and"),
    ],
)
def test_what_makes_no_sense_is_refused(make, text):
    with pytest.raises(ConfigurationError, match=text):
        make()


simple = st.one_of(
    st.builds(EverySteps, st.integers(1, 20)),
    st.builds(AtSteps, st.lists(st.integers(-5, 50), min_size=1)),
    st.builds(EverySeconds, st.floats(0.1, 100)),
    st.builds(TimeBudget, st.floats(0.01, 1)),
)
composed = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner), st.builds(lambda a, b: a | b, inner, inner)
    ),
)
clocks = st.builds(
    lambda elapsed, cost: Clock(elapsed=elapsed, cost=cost),
    st.floats(0, 1000),
    st.none() | st.floats(0, 100),
)


@given(composed, st.integers(0, 50), st.none() | st.integers(0, 50), clocks)
def test_an_answer_without_a_clock_holds_with_any(policy, step, last, clock):
    without, answer = policy.decide(Moment(step, last)), policy.decide(Moment(step, last, clock))
    assert answer in (True, False)
    assert without is None or without is answer


@given(composed, st.integers(0, 50), st.none() | st.integers(0, 50), clocks)
def test_while_the_clock_rests_nothing_but_steps_can_say_yes(policy, step, last, clock):
    rest = policy.rest(clock)
    if rest is None or rest <= 0.001:
        return
    never = Clock(elapsed=-math.inf, cost=None)
    later = Clock(elapsed=clock.elapsed + 0.999 * rest - 0.0005, cost=clock.cost)
    by_steps = policy.decide(Moment(step, last, never))
    assert policy.decide(Moment(step, last, later)) is by_steps
