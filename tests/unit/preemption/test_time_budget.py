"""Whether a save fits into the time that is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distckpt.preemption import time_budget

SECONDS = st.floats(-1e3, 1e6, allow_nan=False)
EXPECTED = st.floats(0, 1e5, allow_nan=False)


@given(st.none() | EXPECTED, st.integers(1, 5))
def test_who_was_not_told_to_end_has_time(expected, workers):
    assert time_budget.fits([None] * workers, expected)


@given(st.lists(st.none() | SECONDS, min_size=1, max_size=5), EXPECTED)
def test_the_one_with_the_least_time_decides(lefts, expected):
    known = [left for left in lefts if left is not None]
    fits = not known or (min(known) > 0 and min(known) >= 1.5 * expected + 1.0)
    assert time_budget.fits(lefts, expected) == fits


@given(st.floats(0.001, 1e6))
def test_when_nobody_knows_how_long_it_takes_it_is_tried(left):
    assert time_budget.fits([left], None)
    assert not time_budget.fits([-left], None)


@given(EXPECTED)
def test_what_is_needed_is_enough(expected):
    assert time_budget.fits([time_budget.needed(expected)], expected)
