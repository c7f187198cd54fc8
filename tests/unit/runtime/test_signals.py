"""A signal is heard while the main thread hangs; children and other listeners are left alone."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.posix
START = """
import asyncio, ctypes, os, signal, threading, time
from distckpt.runtime import signals

heard = threading.Event()
signals.listen(signal.SIGTERM, lambda *_: None, heard.set)

def hang():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


def run(program, start=START):
    code = start + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stderr == ""
    return done


def test_while_the_main_thread_hangs_in_a_call():
    done = run("""
    def watch():
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7 if heard.wait(20) else 1)
    threading.Thread(target=watch).start()
    hang()
    """)
    assert done.returncode == 7


def test_the_handler_is_called_too_and_other_signals_call_nothing():
    run("""
    called = []
    signal.signal(signal.SIGUSR1, lambda *_: called.append("other"))
    signals.listen(signal.SIGTERM, lambda *_: called.append("ours"), heard.set)
    signal.raise_signal(signal.SIGUSR1)
    assert not heard.wait(0.2)
    signal.raise_signal(signal.SIGTERM)
    assert called == ["other", "ours"] and heard.wait(20)
    """).check_returncode()


def test_an_event_loop_that_was_there_before_goes_on_hearing_its_signals():
    run(
        """
    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, done.set)
        signals.listen(signal.SIGTERM, lambda *_: None, heard.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(done.wait(), 20)
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.wait(20)
    asyncio.run(main())
    """,
        START.replace("signals.listen(", "(lambda *_: None)(", 1),
    ).check_returncode()


def test_what_has_got_the_number_of_a_closed_descriptor_is_left_alone():
    run(
        """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signals.listen(signal.SIGTERM, lambda *_: None, heard.set)
    file = os.memfd_create("other")
    os.dup2(file, writing)
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard.wait(20)
    time.sleep(0.1)
    assert os.fstat(file).st_size == 0
    """,
        START.replace("signals.listen(", "(lambda *_: None)(", 1),
    ).check_returncode()


def test_who_listens_later_is_not_pushed_aside():
    run("""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ours = signal.set_wakeup_fd(writing)
    signals.listen(signal.SIGTERM, lambda *_: None, heard.set)
    assert signal.set_wakeup_fd(-1) == writing
    signals.listen(signal.SIGTERM, lambda *_: None, heard.set)  # nobody has it now
    assert signal.set_wakeup_fd(-1) == ours
    """).check_returncode()


def test_what_kills_a_forked_child_is_no_signal_to_its_parent():
    run("""
    for pause in (0.0, 0.05):
        for _ in range(20):
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            time.sleep(pause)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert not heard.wait(0.2)
    signal.raise_signal(signal.SIGTERM)
    assert heard.wait(20)
    """).check_returncode()


def test_a_forked_child_may_listen_itself_and_has_the_handler_that_was_given_for_it():
    done = run("""
    signals.listen(signal.SIGUSR1, lambda *_: None, print, lambda *_: print("child", flush=True))
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGUSR1)
        signals.listen(signal.SIGTERM, lambda *_: None, lambda: os._exit(9))
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
        hang()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not heard.is_set()
    """)
    assert done.returncode == 0
    assert done.stdout == "child\n"


def test_a_fork_leaves_no_signal_blocked():
    run("""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    child = os.fork()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    if child:
        assert os.waitpid(child, 0)[1] == 0
    """).check_returncode()
