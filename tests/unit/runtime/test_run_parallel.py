"""Several things at the same time: all are done, in any order, and errors come out."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from distckpt.runtime.run_parallel import run_all

from ..kit.refusing import Refusing


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


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("number", range(3))
def test_what_threads_cannot_be_started_for_is_done_all_the_same(monkeypatch, number, more):
    refusing = Refusing(monkeypatch, number, more=more)
    assert run_all([lambda n=n: n * n for n in range(20)], 3) == [n * n for n in range(20)]
    assert refusing.refused
    with pytest.raises(ZeroDivisionError):
        run_all([lambda: 1, lambda: 1 // 0, lambda: 2], 3)


def test_ctrl_c_without_threads_ends_it(monkeypatch):
    def stop():
        raise KeyboardInterrupt

    done = []
    Refusing(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_all([lambda: done.append(1), stop, lambda: done.append(2)], 3)
    assert done == [1]


def test_no_thread_is_left():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        run_all([lambda: 1 // 0, lambda: 1, lambda: 2], 3)
    assert threading.active_count() == before


@pytest.mark.posix
def test_no_task_runs_on_when_a_signal_interrupts_the_wait():
    """`Thread.join` takes a running thread for ended when it is interrupted."""
    ended, begun = [], threading.Event()

    def interrupt(*_):
        raise KeyboardInterrupt

    def task():
        begun.set()
        time.sleep(1.0)
        ended.append(1)

    def interrupt_once_begun():
        begun.wait(30)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Thread(target=interrupt_once_begun, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run_all([task, task], 2)
        assert ended == [1, 1]
    finally:
        signal.signal(signal.SIGUSR1, before)
