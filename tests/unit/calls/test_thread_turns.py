"""Threads take turns; a turn that was never given back does not count."""

from __future__ import annotations

import threading

import pytest

from distckpt.calls.thread_turns import ThreadTurns
from distckpt.errors import ConfigurationError


def call(turns, work=lambda: None):
    with turns:
        work()


def interrupted(turns):
    """A call that a signal handler interrupts just before it gives its turn back."""
    turns.__enter__()
    raise KeyboardInterrupt


def leave_a_turn(turns):
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted(turns)
    return caught  # with its traceback, which keeps the function's frame


def test_a_call_within_a_call_is_refused_and_the_outer_one_goes_on():
    turns = ThreadTurns()
    with pytest.raises(ConfigurationError, match="from within another one"):
        call(turns, lambda: call(turns))
    call(turns)


def test_a_turn_that_was_not_given_back_does_not_keep_its_thread_from_another():
    turns = ThreadTurns()
    caught = leave_a_turn(turns)
    call(turns)
    assert caught.value is not None


def test_nor_another_thread():
    turns = ThreadTurns()
    caught = leave_a_turn(turns)
    other = threading.Thread(target=call, args=(turns,), daemon=True)
    other.start()
    other.join(30)
    assert not other.is_alive()
    assert caught.value is not None


def test_a_thread_that_waits_already_is_told_when_the_turn_is_over(monkeypatch):
    monkeypatch.setattr("distckpt.calls.thread_turns._GLANCE", 0.01)
    turns, taken, go_on = ThreadTurns(), threading.Event(), threading.Event()

    def take_and_leave():
        turns.__enter__()
        taken.set()
        go_on.wait(30)

    first = threading.Thread(target=take_and_leave, daemon=True)
    first.start()
    assert taken.wait(30)
    second = threading.Thread(target=call, args=(turns,), daemon=True)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    second.join(30)
    assert not second.is_alive()


def test_the_check_comes_first():
    def refuse():
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError, match="no"):
        call(ThreadTurns(refuse))
