"""Several things at the same time: all are done, in any order, and errors come out."""

from __future__ import annotations

import threading

import pytest

from distckpt.roles.parallel import run_all


@pytest.mark.parametrize("threads", [1, 2, 5, 100])
def test_results_come_in_the_order_of_the_tasks(threads):
    assert run_all([lambda n=n: n * n for n in range(20)], threads) == [n * n for n in range(20)]
    assert run_all([], threads) == []


def test_so_many_run_at_the_same_time():
    barrier = threading.Barrier(3)
    assert len(run_all([lambda: barrier.wait(30)] * 6, 3)) == 6


def test_one_task_runs_in_the_callers_thread():
    assert run_all([threading.current_thread], 4) == [threading.current_thread()]


@pytest.mark.parametrize("threads", [1, 2])
def test_after_an_error_nothing_more_is_begun(threads):
    done = []

    def fail():
        raise OSError("first")

    with pytest.raises(OSError, match="first"):
        run_all([fail, *[lambda n=n: done.append(n) for n in range(1000)]], threads)
    assert len(done) < 1000


def test_the_first_error_in_the_order_of_the_tasks_is_raised():
    both = threading.Barrier(2)

    def fail(text):
        both.wait(30)
        raise OSError(text)

    with pytest.raises(OSError, match="one"):
        run_all([lambda: fail("one"), lambda: fail("two")], 2)


def test_no_thread_is_left():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        run_all([lambda: 1 // 0, lambda: 1, lambda: 2], 3)
    assert threading.active_count() == before
