from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.doctor import clock_skew
from distckpt.doctor.finding import of_clocks


@pytest.mark.parametrize(
    ("before", "other", "after", "ahead"),
    [
        (10.0, 10.5, 11.0, 0.0),
        (10.0, 10.0, 10.0, 0.0),
        (10.0, 14.0, 11.0, 3.0),
        (10.0, 7.0, 11.0, -3.0),
    ],
)
def test_only_what_the_order_of_events_proves_counts(before, other, after, ahead):
    assert clock_skew.apart(before, other, after) == ahead


@given(st.floats(-1e4, 1e4), st.floats(0, 100), st.floats(0, 1))
def test_it_never_claims_more_than_there_is_and_misses_no_more_than_it_took(ahead, took, when):
    found = clock_skew.apart(0.0, took * when + ahead, took)
    assert abs(found) <= abs(ahead) + 1e-6
    assert found * ahead >= 0
    assert abs(ahead - found) <= took + 1e-6


@pytest.mark.parametrize(
    ("ahead", "good", "doubtful"),
    [
        (0.0, True, False),
        (-1.0, True, False),
        (1.1, True, True),
        (-60.0, True, True),
        (61.0, False, True),
    ],
)
def test_from_which_difference_on_it_is_doubtful_and_from_which_it_fails(ahead, good, doubtful):
    finding = of_clocks("clock", ahead, "found")
    assert (finding.good, finding.doubtful) == (good, doubtful)
    assert ("NTP" in finding.text) == doubtful


def test_in_words():
    assert clock_skew.describe(3.21) == "3.2 s ahead of"
    assert clock_skew.describe(-3.21) == "3.2 s behind"
    assert clock_skew.describe(0.04) == "as"
