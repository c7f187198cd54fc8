"""A spread of the matrix, and a short soak; the commands `matrix` and `soak` do all of it."""

from __future__ import annotations

import pytest

from .cells import all_cells, play, spread
from .soak import soak

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("cell", spread(), ids=str)
def test_a_strike_loses_nothing(cell, tmp_path):
    outcome = play(cell, tmp_path)
    assert outcome.restored >= outcome.saved >= cell.point.save - 2


def test_the_spread_has_every_step_fault_and_mode_of_each_role():
    for role in ("chief", "worker"):
        every = [c for c in all_cells() if c.role == role]
        some = [c for c in spread() if c.role == role]
        assert {c.point.step for c in some} == {c.point.step for c in every}
        assert {c.point.fault for c in some} == {c.point.fault for c in every}
        assert {c.point.moment for c in some} == {c.point.moment for c in every}
        assert {c.mode for c in some} == {c.mode for c in every}


def test_kills_at_random_lose_nothing(tmp_path):
    tally = soak(tmp_path, seconds=20.0, seed=1)
    assert tally.killed >= 5
    assert tally.saved > 0
