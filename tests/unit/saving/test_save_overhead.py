"""What a save costs training: how long it stops it, and how much slower it makes it."""

from __future__ import annotations

import pytest

from distckpt.saving.save_overhead import SaveCost


class Program:
    """Calls save() after every step; time passes only where it is said to."""

    def __init__(self):
        self.cost = SaveCost()
        self.now = 100.0

    def step(self, seconds, *, in_flight=False, stop=None, leaves=False, is_same_step=False):
        self.now += seconds
        self.cost.called(self.now, in_flight=in_flight, is_same_step=is_same_step)
        if stop is not None:
            began, self.now = self.now, self.now + stop
            self.cost.saved(began, self.now, in_flight=leaves)
        self.cost.returned(self.now)


@pytest.fixture
def program():
    return Program()


def test_nothing_is_known_before_the_first_save(program):
    assert program.cost.seconds is None
    assert program.cost.step is None
    program.step(5)
    assert program.cost.step is None
    program.step(2)
    assert program.cost.step == 2
    assert program.cost.seconds is None


def test_a_blocking_save_costs_what_it_takes(program):
    for _ in range(5):
        program.step(1.0)
    program.step(1.0, stop=3.0)
    program.step(1.0)
    assert program.cost.seconds == 3.0
    program.step(1.0, stop=2.0)
    assert program.cost.seconds == 2.0


def test_slower_steps_during_a_save_are_counted(program):
    for seconds in (1.0, 1.0, 9.0, 1.0, 1.0):
        program.step(seconds)
    program.step(1.0, stop=0.5, leaves=True)
    program.step(1.4, in_flight=True)
    program.step(0.8, in_flight=True)
    program.step(1.2, in_flight=False)  # it ended during this step
    program.step(5.0)
    assert program.cost.seconds == pytest.approx(0.5 + 0.4 + 0.2)
    assert program.cost.step == pytest.approx((5 * 1.0 + 5.0 + 8.0) / 6)


def test_a_second_call_at_a_step_is_no_step(program):
    for _ in range(10):
        program.step(1.0)
        program.step(0.0, is_same_step=True)
    assert program.cost.step == 1.0


def test_without_undisturbed_steps_only_the_stop_is_known(program):
    for _ in range(5):
        program.step(1.0, stop=0.25, in_flight=True, leaves=True)
    assert program.cost.seconds == 0.25
    assert program.cost.step == 1.0
