"""Workers that are slow, stuck or dead: only slow ones get more time than the deadline."""

from __future__ import annotations

import pytest

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import actions, messages
from distckpt.core.protocol.messages import Progress, Rendezvous
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.messaging import waiting
from distckpt.messaging.keys import Keys
from distckpt.messaging.progress import Hearing
from distckpt.messaging.waiting import Waiting

from .jobs import REFUSAL


class Script(Coordinator):
    """The chief's coordinator in a job of three, on a clock that only waiting moves.

    Args:
      words: (time, key, value) for each key that is published.
    """

    index, count = 0, 3

    def __init__(self, *words):
        self.now = 0.0
        self.dead = {}
        self.words = sorted(words)

    def publish(self, key, value):
        self.words.append((self.now, key, value))

    def fetch(self, keys, timeout):
        end = self.now + timeout
        while True:
            values = {key: value for at, key, value in self.words if at <= self.now}
            for key in keys:
                if key in values:
                    return key, values[key]
            if self.now >= end:
                return None
            self.now = min([end, *(at for at, _, _ in self.words if at > self.now)])

    def lost(self):
        return self.dead

    def has_joined(self, index):
        return index != 2

    def forget(self, keys):
        pass


def written(worker, number, at, done, phase="writing"):
    """Returns progress message `number` of a worker: `done` MiB of 100 are done."""
    said = Progress(worker, f"node-{worker}", 40 + worker, phase, done << 20, 100 << 20)
    return at, Keys("m", "save", 0).progress(worker, number), messages.to_json(said)


def wait(script, monkeypatch, seconds=60.0, factor=3.0, *, of=(1,)):
    """Lets the chief wait for answers of the workers `of`; returns the event."""
    monkeypatch.setattr(waiting.host, "monotonic", lambda: script.now)
    keys = Keys("m", "save", 0)
    patience = Patience(seconds, factor)
    hearing = Hearing(keys)
    waits = Waiting(script, keys, "save() of ckpt-1", patience, hearing=hearing)
    return waits.for_answer(of)


def steady(worker, until, every=4.0):
    """Returns the messages of a worker that makes progress until some time."""
    return [written(worker, n, (n + 1) * every, n) for n in range(int(until / every))]


def test_a_deadline_is_extended_for_who_is_only_slow(monkeypatch, caplog):
    answer = (110.0, Keys("m", "save", 0).answer(1), messages.to_json(REFUSAL))
    script = Script(*steady(1, 110.0), answer)
    assert wait(script, monkeypatch) == actions.Answered(REFUSAL)
    (record,) = caplog.records  # only one warning
    assert (
        "save() of ckpt-1 takes longer than 60 s: worker 1 (node-1, pid 41) is slow" in caplog.text
    )
    assert "of 100.0 MiB" in caplog.text
    assert "extended to at most 180 s" in caplog.text
    assert record.levelname == "WARNING"


def test_not_without_end(monkeypatch):
    script = Script(*steady(1, 400.0))
    event = wait(script, monkeypatch)
    assert isinstance(event, actions.TimedOut)
    assert script.now == pytest.approx(180.0)
    assert "given up after 180 s: worker 1 (node-1, pid 41) is slow" in event.failure.message


def test_not_at_all_with_a_factor_of_one(monkeypatch):
    script = Script(*steady(1, 400.0))
    assert isinstance(wait(script, monkeypatch, factor=1.0), actions.TimedOut)
    assert script.now == pytest.approx(60.0)


def test_not_for_who_is_stuck(monkeypatch):
    script = Script(written(1, 0, 5.0, 30), written(1, 1, 10.0, 40))
    event = wait(script, monkeypatch)
    assert script.now == pytest.approx(60.0)
    text = event.failure.message
    assert "given up after 60 s: worker 1 (node-1, pid 41) is stuck: writing, 40.0 of" in text
    assert "last progress 50 s ago" in text
    assert "worker 0 and worker 2 have done their part" in text


def test_who_gets_stuck_after_the_deadline_is_not_waited_for_to_the_limit(monkeypatch):
    script = Script(*steady(1, 80.0))
    event = wait(script, monkeypatch)
    assert script.now == pytest.approx(80.0 + Patience(60.0).stall)
    assert "worker 1 (node-1, pid 41) is stuck" in event.failure.message


def test_not_for_one_who_is_slow_while_another_is_missing(monkeypatch):
    script = Script(*steady(1, 400.0))
    event = wait(script, monkeypatch, of=(1, 2))
    assert script.now == pytest.approx(60.0)
    text = event.failure.message
    assert "worker 1 (node-1, pid 41) is slow" in text
    assert "worker 2 never came, and has not been seen in this job at all" in text


def test_the_dead_are_told_from_the_slow_at_once(monkeypatch):
    script = Script(*steady(1, 400.0))
    script.dead = {1: "no heartbeat"}
    event = wait(script, monkeypatch)
    assert isinstance(event, actions.Lost)
    assert script.now < 1.0


def test_how_far_the_dead_had_got(monkeypatch):
    script = Script(written(1, 0, 2.0, 30))
    fetch = script.fetch

    def die_later(keys, timeout):
        got = fetch(keys, timeout)
        script.dead = {1: "no heartbeat"} if script.now > 20.0 else {}
        return got

    monkeypatch.setattr(script, "fetch", die_later)
    event = wait(script, monkeypatch)
    expected = "worker 1 died (no heartbeat), last reported: writing, 30.0 of 100.0 MiB"
    assert expected in event.failure.message


def test_short_waits_ask_for_no_progress(monkeypatch):
    asked = []
    script = Script((1.0, Keys("m", "save", 0).answer(1), messages.to_json(REFUSAL)))
    fetch = script.fetch
    monkeypatch.setattr(script, "fetch", lambda keys, t: asked.append(keys) or fetch(keys, t))
    wait(script, monkeypatch)
    assert asked
    assert not [key for keys in asked for key in keys if "progress" in key]


def test_the_rendezvous_in_force_is_waited_for_beyond_the_deadline(monkeypatch):
    """Workers that follow it would wait forever for a worker that left without seeing it."""
    rendezvous = Rendezvous("f", True)
    script = Script((62.0, Keys("m", "save", 0).rendezvous, messages.to_json(rendezvous)))
    monkeypatch.setattr(waiting.host, "monotonic", lambda: script.now)
    waits = Waiting(script, Keys("m", "save", 0), "save() of ckpt-1", Patience(60.0))
    script.now = 60.0
    assert waits.for_rendezvous() == actions.Called(rendezvous)
