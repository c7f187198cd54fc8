"""Python's garbage collector is one for all threads: it is paused for moments, not for I/O."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from distckpt.runtime.gc_pause import paused

from ..kit.lab import Chief, FastStorage


@pytest.fixture(autouse=True)
def enabled():
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_is_on_again_when_the_last_thread_has_ended_its_pause():
    inside, leave = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def pause(number):
        with paused():
            inside[number].set()
            assert leave[number].wait(30)

    threads = [threading.Thread(target=pause, args=(number,)) for number in range(2)]
    for number, thread in enumerate(threads):  # the second begins within the first's pause
        thread.start()
        assert inside[number].wait(30)
    for event, thread in zip(leave, threads, strict=True):  # and ends after it
        assert not gc.isenabled()
        event.set()
        thread.join()
    assert gc.isenabled()


def test_pauses_may_be_nested_and_end_by_errors():
    def work():
        with paused():
            with paused():
                pass
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert gc.isenabled()


def test_a_program_without_collector_stays_so():
    gc.disable()
    with paused():
        pass
    assert not gc.isenabled()


@pytest.mark.posix
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_that_is_forked_in_anothers_pause_has_a_collector():
    inside, leave = threading.Event(), threading.Event()

    def pause():
        with paused():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=pause)
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(0 if gc.isenabled() else 1)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


class Watching(FastStorage):
    """Notes which operations come while the collector is paused."""

    def __init__(self):
        self.during, self.count = set(), 0

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found):
            return found

        def watched(*args, **kwargs):
            self.count += 1
            if not gc.isenabled():
                self.during.add(name)
            return found(*args, **kwargs)

        return watched


def test_no_file_is_waited_for_while_it_is_paused(tmp_path):
    storage = Watching()
    chief = Chief(tmp_path, storage)
    for number, name in enumerate(["ckpt-1", "ckpt-2", "ckpt-3", "ckpt-3"]):
        chief.save(name, number)
    assert storage.count > 100
    assert storage.during == set()
