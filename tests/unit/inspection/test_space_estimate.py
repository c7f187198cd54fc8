from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distckpt.inspection.space_estimate import SpaceEstimate

SIZES = st.integers(0, 10**6)


def test_what_is_not_there_yet_and_the_one_that_is_written():
    assert SpaceEstimate(newest=100, kept=3, there=100).wanted == 300
    assert SpaceEstimate(newest=100, kept=3, there=300).wanted == 100


def test_checkpoints_that_have_grown_take_more():
    assert SpaceEstimate(newest=200, kept=3, there=300).wanted == 500


@given(SIZES, st.integers(0, 100), SIZES)
def test_one_more_is_always_written_before_another_goes(newest, kept, there):
    wanted = SpaceEstimate(newest, kept, there).wanted
    assert wanted >= newest
    assert wanted + there >= (kept + 1) * newest


def test_how_many_fit():
    assert SpaceEstimate(100, 3, 300).more(950) == 9
    assert SpaceEstimate(0, 3, 0).more(950) is None
