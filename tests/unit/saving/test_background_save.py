"""An interrupt while a background save begins: the work is done once, or never."""

from __future__ import annotations

import signal
import threading

import pytest

from distckpt.saving.background_save import BackgroundSave

START = threading.Thread.start


def before(thread):
    raise KeyboardInterrupt


def after(thread):
    START(thread)
    raise KeyboardInterrupt


@pytest.fixture
def interrupt(monkeypatch):
    """Interrupts the next start of a thread of a save."""

    def interrupt(start):
        def once(thread):
            if thread.name.startswith("distckpt save()"):
                monkeypatch.setattr(threading.Thread, "start", START)
                start(thread)
            else:
                START(thread)

        monkeypatch.setattr(threading.Thread, "start", once)

    return interrupt


def begin(background, done, number):
    return background.start(lambda: done.append(number), f"save() of ckpt-{number}")


def test_a_thread_that_was_never_started_leaves_nothing_behind(interrupt):
    background, done = BackgroundSave(), []
    interrupt(before)
    with pytest.raises(KeyboardInterrupt):
        begin(background, done, 1)
    assert not background.pending
    background.finish()
    assert begin(background, done, 2)
    background.finish()
    assert done == [2]


def test_work_that_has_begun_is_finished(interrupt):
    background, done, go_on = BackgroundSave(), [], threading.Event()
    began = threading.Event()

    def work():
        began.set()
        go_on.wait(30)
        done.append(1)

    def after_its_begin(thread):
        START(thread)
        assert began.wait(30)
        raise KeyboardInterrupt

    interrupt(after_its_begin)
    with pytest.raises(KeyboardInterrupt):
        background.start(work, "save() of ckpt-1")
    assert background.pending
    go_on.set()
    background.finish()
    assert begin(background, done, 2)
    background.finish()
    assert done == [1, 2]


def test_work_is_done_or_not_but_the_next_one_always_works(interrupt):
    background, done = BackgroundSave(), []
    for number in range(20):
        interrupt(after)
        with pytest.raises(KeyboardInterrupt):
            begin(background, done, number)
        will_be_done = background.pending
        background.finish()
        assert (number in done) == will_be_done
    assert begin(background, done, 20)
    background.finish()
    assert done[-1] == 20


@pytest.mark.posix
def test_a_wait_that_is_interrupted_does_not_take_the_work_for_done():
    """`Thread.join` does, up to Python 3.12: then the next save would run beside this one."""
    background, done, go_on = BackgroundSave(), [], threading.Event()

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        background.start(lambda: (go_on.wait(30), done.append(1)), "save() of ckpt-1")
        main = threading.main_thread().ident
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            background.finish()
        assert background.busy
        go_on.set()
        background.finish()
        assert done == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)
