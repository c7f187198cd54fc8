from __future__ import annotations

import threading

import pytest

from distckpt.coordination.in_process import InProcessJob
from distckpt.core.protocol import messages
from distckpt.core.protocol.messages import Progress
from distckpt.errors import WorkerLostError
from distckpt.messaging.keys import Keys
from distckpt.messaging.progress import Hearing, Reporter, telling
from distckpt.runtime import host

from ..kit.refusing import Refusing


class Clock:
    now = 100.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(host, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def job():
    return InProcessJob(2)


def heard(job, number):
    """Returns word `number` of worker 1, as worker 0 finds it."""
    got = job.coordinator(0).fetch([Keys("m", "save", 0).progress(1, number)], 0.0)
    return messages.progress_from_json(got[1]) if got else None


def reporter(job, interval=5.0):
    return Reporter(job.coordinator(1), Keys("m", "save", 0), interval)


def test_what_is_done_within_the_interval_costs_no_word(job, clock):
    tell = reporter(job)
    tell.enter("writing", 100)
    tell.add(50)
    clock.now += 4.9
    tell.tick()
    assert heard(job, 0) is None


def test_a_word_says_phase_bytes_and_process(job, clock):
    tell = reporter(job)
    tell.enter("flushing", 100)
    tell.add(30)
    tell.add(20)
    clock.now += 5.0
    tell.tick()
    assert heard(job, 0) == Progress(1, host.name(), host.pid(), "flushing", 50, 100)


def test_no_news_is_no_word(job, clock):
    tell = reporter(job)
    tell.enter("merging")
    for _ in range(3):
        clock.now += 5.0
        tell.tick()
    assert heard(job, 0).phase == "merging"
    assert heard(job, 1) is None
    tell.enter("committing")
    tell.tick()
    assert heard(job, 1) is None  # not so soon
    clock.now += 5.0
    tell.tick()
    assert heard(job, 1).phase == "committing"


def test_bytes_may_be_measured_when_a_word_is_due(job, clock):
    sizes = iter([10, 20])
    tell = reporter(job)
    tell.enter("writing", 100, lambda: next(sizes))
    for _ in range(2):
        clock.now += 5.0
        tell.tick()
    assert [heard(job, n).done for n in (0, 1)] == [10, 20]


def test_a_measurement_that_fails_or_comes_late_changes_nothing(job, clock):
    def fail():
        raise FileNotFoundError

    tell = reporter(job)
    tell.enter("writing", 100, fail)
    tell.add(7)
    clock.now += 5.0
    tell.tick()
    assert heard(job, 0).done == 7

    def late():
        tell.enter("merging")
        return 99

    tell.enter("flushing", 100, late)
    clock.now += 5.0
    tell.tick()
    assert (heard(job, 1).phase, heard(job, 1).done) == ("merging", 0)


def test_what_cannot_be_told_disturbs_nobody(job, clock, monkeypatch):
    tell = reporter(job)

    def refuse(key, value):
        raise WorkerLostError("the engine is gone")

    monkeypatch.setattr(tell._coordinator, "publish", refuse)
    tell.enter("writing")
    clock.now += 5.0
    tell.tick()


def test_a_thread_tells_while_the_body_runs_and_no_longer(job):
    tell = reporter(job, interval=0.01)
    with telling(tell, 0.01):
        tell.enter("writing", 8)
        assert job.coordinator(0).fetch([Keys("m", "save", 0).progress(1, 0)], 10.0)
    assert not [t for t in threading.enumerate() if t.name == "distckpt-progress" and _waits(t)]


def test_without_a_thread_there_is_a_word_when_there_is_news(job, monkeypatch):
    Refusing(monkeypatch)
    tell = reporter(job, interval=0.0)
    with telling(tell, 0.0):
        tell.enter("writing", 8)
        assert heard(job, 0).phase == "writing"


def words(job):
    return [key for key in job._values if "progress" in key]


def test_its_words_are_forgotten_when_the_call_ends_and_the_next_that_is_waited_for(
    job, monkeypatch
):
    forgotten, forget = [], InProcessJob.forget
    monkeypatch.setattr(
        InProcessJob, "forget", lambda job, keys: (forgotten.extend(keys), forget(job, keys))
    )
    tell = reporter(job, interval=0.0)
    tell.enter("writing", 8)
    for _ in range(3):
        tell.add(1)
        tell.tick()
    assert len(words(job)) == 3
    tell.end()
    assert words(job) == []
    assert forgotten == [Keys("m", "save", 0).progress(1, n) for n in range(4)]
    tell.add(1)
    tell.tick()
    assert words(job) == []


def test_a_word_that_arrives_after_the_end_is_forgotten(job, monkeypatch):
    publish = InProcessJob.publish

    def late(job, *args):
        tell.end()
        publish(job, *args)

    monkeypatch.setattr(InProcessJob, "publish", late)
    tell = reporter(job, interval=0.0)
    tell.enter("writing", 8)
    tell.tick()
    assert words(job) == []


def _waits(thread):
    thread.join(10.0)
    return thread.is_alive()


def test_what_was_heard_last_and_how_long_ago(job, clock):
    hearing = Hearing(Keys("m", "save", 0))
    assert hearing.last(1) is None
    (key,) = hearing.names([1])
    assert key == Keys("m", "save", 0).progress(1, 0)
    word = Progress(1, "h", 2, "writing", 3, 4)
    hearing.hear(1, messages.to_json(word))
    clock.now += 7.0
    assert hearing.last(1) == (word, 7.0)
    assert hearing.names([1, 2]) == {
        Keys("m", "save", 0).progress(1, 1): 1,
        Keys("m", "save", 0).progress(2, 0): 2,
    }
    assert hearing.bytes([1, 2]) == 3
    assert hearing.bytes([2]) == 0


def test_all_words_are_forgotten_with_the_call_and_the_next_that_is_waited_for():
    keys = Keys("m", "save", 0)
    hearing = Hearing(keys)
    for _ in range(2):
        hearing.names([1])
        hearing.hear(1, messages.to_json(Progress(1, "h", 2, "writing")))
    words = {key for key in keys.all(2) if "progress" in key}
    assert {Keys("m", "save", 0).progress(1, n) for n in range(3)} <= words
