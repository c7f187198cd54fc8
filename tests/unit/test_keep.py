"""Retention policies: pure functions of the list of checkpoints."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt import keep
from distckpt.errors import ConfigurationError
from distckpt.keep import Checkpoint

HOUR = 3600.0


def steps(*numbers, **metrics):
    """Checkpoints at these steps, an hour apart."""
    return [
        Checkpoint(
            name=f"ckpt-{number}",
            time=position * HOUR,
            step=number,
            metrics={name: values[position] for name, values in metrics.items()},
        )
        for position, number in enumerate(numbers)
    ]


def kept(policy, checkpoints, now=1000 * HOUR):
    return [c.name for c in checkpoints if c.name in policy.reasons(checkpoints, now)]


def test_every_steps_keeps_the_first_at_or_after_each_multiple():
    found = kept(keep.EverySteps(1000), steps(100, 990, 1010, 1500, 3000, 3500, 4999))
    assert found == ["ckpt-1010", "ckpt-3000", "ckpt-4999"]


def test_at_steps_keeps_the_first_at_or_after_each():
    policy = keep.AtSteps([10, 1500, 9999])
    checkpoints = steps(5, 12, 20, 1500, 1600)
    assert kept(policy, checkpoints) == ["ckpt-12", "ckpt-1500"]
    assert policy.reasons(checkpoints, 0.0)["ckpt-12"] == "first at or after step 10"


def test_every_hours_counts_from_what_it_keeps():
    assert kept(keep.EveryHours(2), steps(1, 2, 3, 4, 5, 6)) == ["ckpt-1", "ckpt-3", "ckpt-5"]


def test_time_to_live_ends():
    checkpoints = steps(1, 2, 3)
    assert kept(keep.YoungerThan(1), checkpoints, now=2 * HOUR) == ["ckpt-2", "ckpt-3"]
    assert kept(keep.YoungerThan(1), checkpoints, now=9 * HOUR) == []


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("min", [3.0, 1.0, 2.0, 0.5], ["ckpt-2", "ckpt-4"]),
        ("max", [3.0, 1.0, 2.0, 0.5], ["ckpt-1", "ckpt-3"]),
        ("min", [1.0, 1.0, 1.0, 2.0], ["ckpt-1", "ckpt-2"]),  # of equal ones the older
        ("max", [1.0, math.nan, 1.0, 1.0], ["ckpt-1", "ckpt-3"]),
        ("min", [math.nan, math.inf, -math.inf, 5.0], ["ckpt-3", "ckpt-4"]),
        ("min", [math.nan, math.nan, math.nan, math.nan], []),
    ],
)
def test_the_best_by_a_metric(mode, values, best):
    assert kept(keep.Best(2, "loss", mode), steps(1, 2, 3, 4, loss=values)) == best


def test_a_checkpoint_without_the_metric_is_not_among_the_best():
    plain = Checkpoint(name="plain", time=0.0)
    checkpoints = [plain, *steps(1, loss=[9.0])]
    assert kept(keep.Best(2, "loss"), checkpoints) == ["ckpt-1"]
    assert kept(keep.EverySteps(1), checkpoints) == ["ckpt-1"]


def test_the_last_that_was_verified():
    a, b, c = steps(1, 2, 3)
    good = [Checkpoint(name=x.name, time=x.time, verified=x is not c) for x in (a, b, c)]
    assert kept(keep.LastVerified(), good) == ["ckpt-2"]
    assert kept(keep.LastVerified(), [a, b, c]) == []


def test_reasons_are_joined():
    policy = keep.EverySteps(10) | keep.Best(1, "loss")
    assert policy.reasons(steps(10, 11, loss=[0.25, 1.0]), 0.0) == {
        "ckpt-10": "first at or after step 10; number 1 by loss (0.25)"
    }
    both = keep.EverySteps(10) & keep.Best(1, "loss")
    assert both.reasons(steps(10, 20, loss=[0.25, 1.0]), 0.0) == {
        "ckpt-10": "first at or after step 10 and number 1 by loss (0.25)"
    }


# --- Properties

CHECKPOINTS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([0.0, 0.5, 1.0, math.nan])), max_size=12
).map(
    lambda rows: [
        Checkpoint(name=f"c{i}", time=i * HOUR, step=step, metrics={"loss": loss})
        for i, (step, loss) in enumerate(rows)
    ]
)
SIMPLE = st.one_of(
    st.integers(1, 20).map(keep.EverySteps),
    st.lists(st.integers(0, 60), min_size=1, max_size=3).map(keep.AtSteps),
    st.integers(1, 5).map(keep.EveryHours),
    st.integers(1, 20).map(keep.YoungerThan),
    st.tuples(st.integers(1, 3), st.sampled_from(["min", "max"])).map(
        lambda t: keep.Best(t[0], "loss", t[1])
    ),
    st.just(keep.LastVerified()),
)
POLICIES = st.recursive(
    SIMPLE,
    lambda inner: st.tuples(inner, inner, st.booleans()).map(
        lambda t: (t[0] | t[1]) if t[2] else (t[0] & t[1])
    ),
    max_leaves=4,
)


@given(POLICIES)
def test_a_policy_is_read_from_its_own_text(policy):
    assert keep.parse(repr(policy)) == policy


@given(POLICIES, POLICIES, CHECKPOINTS)
def test_or_is_union_and_and_is_intersection(one, other, checkpoints):
    now = 12 * HOUR
    a, b = set(one.reasons(checkpoints, now)), set(other.reasons(checkpoints, now))
    assert set((one | other).reasons(checkpoints, now)) == a | b
    assert set((one & other).reasons(checkpoints, now)) == a & b


@given(st.integers(1, 20), CHECKPOINTS)
def test_what_every_steps_keeps_it_goes_on_keeping(n, checkpoints):
    """Steps grow; whatever is deleted between two saves, what was kept once is kept again."""
    ordered = sorted(checkpoints, key=lambda c: c.step)
    policy = keep.EverySteps(n)
    there: list[Checkpoint] = []
    before: set[str] = set()
    for checkpoint in ordered:
        there.append(checkpoint)
        wanted = set(policy.reasons(there, 0.0))
        assert before <= wanted
        before = wanted
        there = [c for c in there if c.name in wanted or c is checkpoint]


@given(st.integers(1, 5), CHECKPOINTS)
def test_what_every_hours_keeps_it_goes_on_keeping(hours, checkpoints):
    policy = keep.EveryHours(hours)
    there: list[Checkpoint] = []
    before: set[str] = set()
    for checkpoint in checkpoints:
        there.append(checkpoint)
        wanted = set(policy.reasons(there, 0.0))
        assert before <= wanted
        before = wanted
        there = [c for c in there if c.name in wanted or c is checkpoint]


@given(POLICIES, CHECKPOINTS)
def test_only_what_is_there_is_kept(policy, checkpoints):
    assert set(policy.reasons(checkpoints, 0.0)) <= {c.name for c in checkpoints}


# --- Bad input


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: keep.EverySteps(0), "positive number of steps, got 0"),
        (lambda: keep.EverySteps(True), "positive number of steps, got True"),
        (lambda: keep.AtSteps([]), r"one or more step numbers, got \[\]"),
        (lambda: keep.EveryHours(0), "positive number of hours, got 0"),
        (lambda: keep.YoungerThan("1"), "positive number of hours, got '1'"),
        (lambda: keep.Best(0, "loss"), "positive count, got 0"),
        (lambda: keep.Best(1, ""), "name of a metric, got ''"),
        (lambda: keep.Best(1, "loss", "least"), '"min" or "max", got \'least\''),
        (lambda: keep.EverySteps(1) | 3, "combines two keep policies, got 3"),
        (lambda: keep.EverySteps(1) and keep.EverySteps(2), "Combine keep policies with"),
    ],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(ConfigurationError, match=text):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "EverySteps",
        "EverySteps()",
        "EverySteps(1) + EverySteps(2)",
        "EverySteps(__import__('os').getpid())",
        "open('/etc/passwd')",
        "keep.EverySteps(1)",
        "EverySteps(0)",
        "(" * 500 + ")" * 500,
    ],
)
def test_a_text_that_is_no_policy_is_refused(text):
    with pytest.raises(ConfigurationError):
        keep.parse(text)


def test_a_metric_without_quotes_is_explained():
    with pytest.raises(ConfigurationError, match="neither a number nor a text in quotes"):
        keep.parse("Best(3, val_loss)")
