from __future__ import annotations

import threading

import pytest

from distckpt import errors
from distckpt.coordination.background import Background
from distckpt.coordination.crew import Crew

from ..kit.eventually import eventually
from ..kit.refusing import Refusing

SOON = 10.0


def blocked(crew, number, most=None):
    """Gives `number` pieces of work that do not end; returns which are done, and their end."""
    release = threading.Event()
    return [crew.do(lambda: release.wait(60), most) for _ in range(number)], release


def test_each_piece_of_work_has_a_thread_of_its_own():
    crew, met = Crew(0), threading.Barrier(5)
    assert all(crew.do(lambda: met.wait(SOON)) for _ in range(4))
    met.wait(SOON)


def test_threads_in_reserve_go_on_when_no_thread_can_be_started(monkeypatch):
    crew = Crew(0)
    crew.grow(4)
    Refusing(monkeypatch)
    done, release = blocked(crew, 6)
    assert done == [True] * 4 + [False] * 2
    release.set()
    eventually(lambda: crew._idle == 4)
    assert crew.do(lambda: None)


def test_work_with_a_limit_leaves_the_other_threads_alone():
    before = threading.active_count()
    crew = Crew(4)
    done, release = blocked(crew, 3, most=2)
    assert done == [True, True, False]
    others, also = blocked(crew, 2)
    assert all(others)
    assert threading.active_count() == before + 4
    release.set()
    also.set()
    eventually(lambda: crew._idle == 4)
    assert crew.do(lambda: None, 2)


def test_threads_are_started_again_when_that_is_possible(monkeypatch):
    crew = Crew(0)
    with monkeypatch.context() as limited:
        Refusing(limited)
        assert not crew.do(lambda: None)
    done = threading.Event()
    assert crew.do(done.set)
    assert done.wait(SOON)


def test_no_more_threads_stay_than_are_in_reserve():
    crew = Crew(1)
    before = threading.active_count()
    done, release = blocked(crew, 20)
    assert all(done)
    release.set()
    eventually(lambda: threading.active_count() <= before + 1)


def test_a_call_for_which_there_is_no_thread_says_so(monkeypatch):
    Refusing(monkeypatch)
    with pytest.raises(errors.CoordinationError, match=r"limit of its threads. Raise it"):
        Background(lambda: 1, Crew(0))
