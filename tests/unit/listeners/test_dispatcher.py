"""Whatever a listener does, who emits goes on at once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from distckpt import events
from distckpt.listeners import dispatcher
from distckpt.listeners.dispatcher import Dispatcher


@pytest.fixture
def post(monkeypatch):
    """A queue and a thread of this test's own."""
    post = dispatcher._Post()
    monkeypatch.setattr(dispatcher, "_post", post)
    return post


def emit(dispatcher, number=0):
    dispatcher(events.SaveSkipped, skipped=number)


def test_listeners_hear_in_order_on_one_other_thread(post):
    heard, threads = [], set()

    def listen(event):
        heard.append((event.skipped, event.worker, event.workers, event.directory))
        threads.add(threading.current_thread())

    first = Dispatcher([listen, listen], "/run", 1, 3)
    other = Dispatcher([listen], "/other", 0, 1)
    for number in range(3):
        emit(first, number)
    emit(other, 3)
    other.flush()
    mine = [(n, 1, 3, "/run") for n in range(3) for _ in range(2)]
    assert heard == [*mine, (3, 0, 1, "/other")]
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_without_listeners_there_is_no_thread_and_no_clock(post, monkeypatch):
    monkeypatch.setattr("distckpt.runtime.host.now", None)
    silent = Dispatcher((), "/run")
    emit(silent)
    silent.flush()
    assert post._thread is None


def test_one_that_raises_is_logged_once_and_harms_nobody(post, caplog):
    heard = []

    def fails(event):
        raise SystemExit("no") if event.skipped else ValueError("it is broken")

    both = Dispatcher([fails, lambda event: heard.append(event.skipped)])
    for number in range(4):
        emit(both, number)
    both.flush()
    assert heard == [0, 1, 2, 3]
    (record,) = [r for r in caplog.records if "failed at SaveSkipped" in r.getMessage()]
    assert "it is broken" in record.exc_text
    assert "fails" in record.getMessage()


def test_a_full_queue_drops_and_says_so_once(post, caplog, monkeypatch):
    monkeypatch.setattr(dispatcher, "MOST_WAITING", 5)
    go_on, heard = threading.Event(), []

    def slow(event):
        go_on.wait(30)
        heard.append(event.skipped)

    slow_one = Dispatcher([slow])
    began = time.monotonic()
    for number in range(50):
        emit(slow_one, number)
    slow_one.flush(0.1)
    assert time.monotonic() - began < 5
    assert post.dropped in (44, 45)  # one or none is being heard
    assert caplog.text.count("Listeners are too slow") == 1
    go_on.set()
    slow_one.flush()
    assert len(heard) == 50 - post.dropped
    assert heard == sorted(heard)


def test_a_listener_may_emit_and_flush_itself(post):
    heard = []

    def listen(event):
        heard.append(event.skipped)
        if not event.skipped:
            emit(chatty, 1)
            chatty.flush(60)

    chatty = Dispatcher([listen])
    emit(chatty)
    chatty.flush()
    chatty.flush()
    assert heard == [0, 1]


def test_a_signal_handler_may_emit_while_the_program_does(post):
    heard = []
    one = Dispatcher([lambda event: heard.append(event.skipped)])
    before = signal.signal(signal.SIGALRM, lambda number, frame: emit(one, -1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for number in range(300):
            emit(one, number)
            time.sleep(0.0002)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    one.flush(20)
    assert [n for n in heard if n >= 0] == list(range(300))
    assert -1 in heard


@pytest.mark.posix
def test_a_forked_child_has_a_thread_of_its_own(post):
    heard = []
    one = Dispatcher([lambda event: heard.append(event.skipped)])
    emit(one)
    one.flush()
    child = os.fork()
    if not child:
        try:
            emit(one, 7)
            one.flush()
            os._exit(heard[-1])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_emitting_costs_next_to_nothing(post):
    silent, one = Dispatcher(), Dispatcher([lambda event: None])
    emit(one)
    for who in (silent, one):
        began = time.perf_counter()
        for _ in range(900):
            emit(who)
        assert (time.perf_counter() - began) / 900 < 0.0005
        who.flush()


# --- The end of the program


def run(program):
    head = """
    import logging, multiprocessing, sys, time
    from distckpt import events
    from distckpt.listeners.dispatcher import Dispatcher
    logging.basicConfig()
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    return done, time.monotonic() - began


def test_the_end_of_the_program_waits_for_the_last_words():
    done, _ = run("""
    def listen(event):
        time.sleep(0.3)
        print("heard", event.skipped, flush=True)
    Dispatcher([listen])(events.SaveSkipped, skipped=5)
    """)
    assert done.returncode == 0
    assert done.stdout == "heard 5\n"


def test_the_end_of_the_program_does_not_wait_for_ever():
    done, seconds = run("""
    one = Dispatcher([lambda event: time.sleep(1000)])
    for number in range(3):
        one(events.SaveSkipped, skipped=number)
    """)
    assert done.returncode == 0
    assert seconds < 15
    assert "have not reached the listeners" in done.stderr


def test_a_child_of_multiprocessing_is_heard_to_the_end():
    done, _ = run("""
    def listen(event):
        time.sleep(0.3)
        print("heard", event.skipped, flush=True)
    def work():
        Dispatcher([listen])(events.SaveSkipped, skipped=6)
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    """)
    assert done.stdout == "heard 6\n", done.stderr


def test_it_logs_to_the_package(post, caplog):
    caplog.set_level(logging.ERROR, "distckpt")

    def fails(event):
        raise RuntimeError

    one = Dispatcher([fails])
    emit(one)
    one.flush()
    assert {r.name for r in caplog.records} == {"distckpt"}
