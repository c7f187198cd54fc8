from __future__ import annotations

import threading
import time

import pytest

from distckpt.coordination.base import Coordinator
from distckpt.coordination.in_process import InProcessJob
from distckpt.core import messages, steps
from distckpt.core.delays import Patience
from distckpt.core.messages import (
    Opening,
    Outcome,
    Progress,
    Proposal,
    Refusal,
    Report,
    Roll,
    Verdict,
)
from distckpt.errors import Failure
from distckpt.roles import waiting
from distckpt.roles.keys import Keys
from distckpt.roles.progress import Hearing
from distckpt.roles.waiting import Waiting

OPENING = Opening("a", "ckpt-1", "/d", "f", "t")
REFUSAL = Refusal(1, Failure("StorageFullError", "full", 1))


class Job:
    """Three workers; `publish` speaks for any of them."""

    def __init__(self):
        self.job = InProcessJob(3)
        self.keys = Keys("m", "save", 0)

    def waiting(self, index, deadline=0.05):
        coordinator = self.job.coordinator(index)
        return Waiting(coordinator, self.keys, "save() of ckpt-1", Patience(deadline))

    def publish(self, key, message):
        text = message if isinstance(message, str) else messages.to_json(message)
        self.job.coordinator(0).publish(key, text)


@pytest.fixture
def job():
    return Job()


def test_keys_of_different_calls_and_managers_differ():
    calls = [Keys(m, k, n) for m in ("a", "b") for k in ("save", "restore") for n in (0, 1)]
    names = [key for call in calls for key in call.all(3)]
    assert len(set(names)) == len(names)
    assert set(calls[0].all(2)) == {
        "a/save-0/roll",
        "a/save-0/opening",
        "a/save-0/outcome",
        "a/save-0/answer-0",
        "a/save-0/answer-1",
        "a/save-0/ready-0",
        "a/save-0/ready-1",
    }


# --- What arrives


def test_the_chief_gets_an_answer(job):
    job.publish(job.keys.answer(1), REFUSAL)
    assert job.waiting(0).for_answer({1, 2}) == steps.Answered(REFUSAL)


def test_the_chief_hears_who_has_come(job):
    job.publish(job.keys.ready(2), "print")
    assert job.waiting(0).for_ready({1, 2}) == steps.Ready(2, "print")


def test_the_chief_hears_of_a_refusal_while_it_waits_for_others_to_come(job):
    job.publish(job.keys.answer(1), REFUSAL)
    assert job.waiting(0).for_ready({1, 2}) == steps.Answered(REFUSAL)


def test_a_worker_gets_the_opening(job):
    job.publish(job.keys.opening, OPENING)
    assert job.waiting(1).for_opening(roll=False) == steps.Opened(OPENING)


def test_a_worker_that_comes_too_late_gets_the_outcome_and_does_not_begin(job):
    outcome = Outcome(Failure("DeadlineExceededError", "too late", 1))
    job.publish(job.keys.roll, Roll("f", True))
    job.publish(job.keys.opening, OPENING)
    job.publish(job.keys.outcome, outcome)
    assert job.waiting(1).for_opening(roll=True) == steps.Told(outcome)


def test_the_roll_comes_before_the_opening(job):
    job.publish(job.keys.roll, Roll("f", True))
    job.publish(job.keys.opening, OPENING)
    assert job.waiting(1).for_opening(roll=True) == steps.Called(Roll("f", True))
    assert job.waiting(1).for_opening(roll=False) == steps.Opened(OPENING)


def test_of_two_rolls_the_first_is_in_force(job):
    job.publish(job.keys.roll, Roll("", False))
    job.publish(job.keys.roll, Roll("f", True))
    assert job.waiting(0).for_roll() == steps.Called(Roll("", False))


def test_a_worker_gets_the_outcome(job):
    outcome = Outcome(None, "ckpt-1", (("ckpt-1", 1.5),), 0.5)
    job.publish(job.keys.outcome, outcome)
    assert job.waiting(1).for_outcome() == steps.Told(outcome)


def test_steps_and_verdicts_of_a_restore(job):
    job.publish(job.keys.step(0), Proposal("verify", "ckpt-1", "/d"))
    assert job.waiting(1).for_step(0) == Proposal("verify", "ckpt-1", "/d")
    job.publish(job.keys.verdict(0, 2), Verdict(2))
    assert job.waiting(0).for_verdict(0, {1, 2}) == Verdict(2)
    job.publish(job.keys.outcome, Outcome(None, "ckpt-1"))
    assert job.waiting(1).for_step(1) == Outcome(None, "ckpt-1")


def test_one_hears_each_worker_at_each_step_of_its_own(job):
    """The keys of a step are made once, and must not be taken for those of another."""
    chief = job.waiting(0, deadline=10.0)
    for worker in (2, 1):
        job.publish(job.keys.ready(worker), f"print-{worker}")
        job.publish(job.keys.answer(worker), Refusal(worker, REFUSAL.failure))
        for step in (0, 1):
            job.publish(job.keys.verdict(step, worker), Verdict(worker, damaged=step == 1))
    for worker, workers in ((1, {1, 2}), (2, {2}), (1, {1})):
        assert chief.for_ready(workers) == steps.Ready(worker, f"print-{worker}")
        assert chief.for_answer(workers).answer.worker == worker
        assert chief.for_verdict(0, workers) == Verdict(worker)
        assert chief.for_verdict(1, workers) == Verdict(worker, damaged=True)


def test_what_arrives_while_waiting_is_noticed_at_once(job):
    timer = threading.Timer(0.05, job.publish, (job.keys.outcome, Outcome(None, "ckpt-1")))
    timer.start()
    started = time.monotonic()
    assert isinstance(job.waiting(1, deadline=30.0).for_outcome(), steps.Told)
    assert time.monotonic() - started < 5.0


# --- Deadlines


def test_a_deadline_names_all_that_are_missing_and_how_far_they_got(job):
    job.publish(job.keys.ready(2), "print")
    event = job.waiting(0).for_answer({1, 2})
    assert isinstance(event, steps.TimedOut)
    assert event.failure.kind == "DeadlineExceededError"
    assert event.failure.worker == 1
    text = event.failure.message
    assert "save() of ckpt-1 was given up after 0.05 s" in text
    assert "worker 1 never came; worker 2 came, but did not finish its part" in text
    assert "raise the deadline" in text


def test_the_chief_that_never_comes_is_named(job):
    event = job.waiting(1).for_opening(roll=True)
    assert isinstance(event, steps.TimedOut)
    assert "worker 0 never came" in event.failure.message


def test_every_wait_has_a_deadline(job):
    chief, worker = job.waiting(0), job.waiting(1)
    for event in (
        chief.for_ready({1, 2}),
        chief.for_answer({1, 2}),
        chief.for_verdict(0, {1, 2}),
        worker.for_roll(),
        worker.for_outcome(),
        worker.for_step(0),
        worker.for_opening(roll=True),
    ):
        assert isinstance(event, steps.TimedOut)


def test_a_deadline_counts_for_the_whole_call(job):
    chief = job.waiting(0, deadline=0.2)
    started = time.monotonic()
    job.publish(job.keys.answer(1), REFUSAL)
    chief.for_answer({1})
    chief.for_answer({2})
    chief.for_answer({2})
    assert time.monotonic() - started < 0.5


def test_a_worker_allows_the_chief_its_whole_deadline_from_the_opening_on(job):
    worker = job.waiting(1, deadline=0.05)
    job.publish(job.keys.opening, OPENING)
    worker.for_opening(roll=True)
    timer = threading.Timer(0.3, job.publish, (job.keys.outcome, Outcome(None)))
    timer.start()
    assert isinstance(worker.for_outcome(), steps.Told)


def test_a_worker_waits_a_little_longer_for_the_verdict_of_a_chief_that_has_come(job):
    """The chief began later, waits for a third, and is about to say for whom."""
    job.publish(job.keys.ready(0), "print")
    outcome = Outcome(Failure("DeadlineExceededError", "worker 2 never came", 2))
    timer = threading.Timer(0.3, job.publish, (job.keys.outcome, outcome))
    timer.start()
    assert job.waiting(1, deadline=0.05).for_opening(roll=True) == steps.Told(outcome)


# --- Slow, stuck, dead


class Script(Coordinator):
    """The chief's coordinator in a job of three, on a clock that moves only by waiting.

    Args:
      words: (time, key, value): what is published when.
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
    """Word `number` of a worker: so many MiB of 100 are done."""
    said = Progress(worker, f"node-{worker}", 40 + worker, phase, done << 20, 100 << 20)
    return at, Keys("m", "save", 0).progress(worker, number), messages.to_json(said)


def wait(script, monkeypatch, seconds=60.0, factor=3.0, *, of=(1,)):
    """Lets the chief wait for the answers of some workers; returns the event."""
    monkeypatch.setattr(waiting.host, "monotonic", lambda: script.now)
    keys = Keys("m", "save", 0)
    patience = Patience(seconds, factor)
    hearing = Hearing(keys)
    waits = Waiting(script, keys, "save() of ckpt-1", patience, hearing=hearing)
    return waits.for_answer(of)


def steady(worker, until, every=4.0):
    """A worker that makes progress all the time, up to some time."""
    return [written(worker, n, (n + 1) * every, n) for n in range(int(until / every))]


def test_a_deadline_is_extended_for_who_is_only_slow(monkeypatch, caplog):
    answer = (110.0, Keys("m", "save", 0).answer(1), messages.to_json(REFUSAL))
    script = Script(*steady(1, 110.0), answer)
    assert wait(script, monkeypatch) == steps.Answered(REFUSAL)
    (record,) = caplog.records  # once, however often
    assert (
        "save() of ckpt-1 takes longer than 60 s: worker 1 (node-1, pid 41) is slow" in caplog.text
    )
    assert "of 100.0 MiB" in caplog.text
    assert "up to 180 s in all" in caplog.text
    assert record.levelname == "WARNING"


def test_not_without_end(monkeypatch):
    script = Script(*steady(1, 400.0))
    event = wait(script, monkeypatch)
    assert isinstance(event, steps.TimedOut)
    assert script.now == pytest.approx(180.0)
    assert "given up after 180 s: worker 1 (node-1, pid 41) is slow" in event.failure.message


def test_not_at_all_with_a_factor_of_one(monkeypatch):
    script = Script(*steady(1, 400.0))
    assert isinstance(wait(script, monkeypatch, factor=1.0), steps.TimedOut)
    assert script.now == pytest.approx(60.0)


def test_not_for_who_is_stuck(monkeypatch):
    script = Script(written(1, 0, 5.0, 30), written(1, 1, 10.0, 40))
    event = wait(script, monkeypatch)
    assert script.now == pytest.approx(60.0)
    text = event.failure.message
    assert "given up after 60 s: worker 1 (node-1, pid 41) is stuck: writing, 40.0 of" in text
    assert "last progress 50 s ago" in text
    assert "worker 0, worker 2 did their part" in text


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
    assert isinstance(event, steps.Lost)
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
    expected = "worker 1 died (no heartbeat), last heard of writing, 30.0 of 100.0 MiB"
    assert expected in event.failure.message


def test_short_waits_ask_for_no_progress(monkeypatch):
    asked = []
    script = Script((1.0, Keys("m", "save", 0).answer(1), messages.to_json(REFUSAL)))
    fetch = script.fetch
    monkeypatch.setattr(script, "fetch", lambda keys, t: asked.append(keys) or fetch(keys, t))
    wait(script, monkeypatch)
    assert asked
    assert not [key for keys in asked for key in keys if "progress" in key]


def test_the_roll_in_force_is_waited_for_beyond_the_deadline(monkeypatch):
    """Some may go by it already, and would wait for ever for one who left without seeing it."""
    roll = Roll("f", True)
    script = Script((62.0, Keys("m", "save", 0).roll, messages.to_json(roll)))
    monkeypatch.setattr(waiting.host, "monotonic", lambda: script.now)
    waits = Waiting(script, Keys("m", "save", 0), "save() of ckpt-1", Patience(60.0))
    script.now = 60.0
    assert waits.for_roll() == steps.Called(roll)


def test_the_chief_hears_of_trouble_while_it_writes(job):
    chief = job.waiting(0)
    assert chief.for_trouble() is None
    report = Report(2, "h", 1, 0.0, (), (), ())
    job.publish(job.keys.answer(2), report)
    assert chief.for_trouble() is None
    job.publish(job.keys.answer(1), REFUSAL)
    assert chief.for_trouble() == steps.Answered(REFUSAL)
    assert chief.for_answer({1, 2}) == steps.Answered(report)  # heard early, and not lost
    assert chief.for_answer({1}) == steps.Answered(REFUSAL)


def test_a_death_is_trouble_too(job):
    chief = job.waiting(0)
    job.job.kill(2, "power")
    event = chief.for_trouble()
    assert isinstance(event, steps.Lost)
    assert "worker 2 died (power)" in event.failure.message


# --- Deaths


def test_a_death_is_noticed_at_once_with_its_reason(job):
    timer = threading.Timer(0.05, job.job.kill, (2, "killed by signal 9"))
    timer.start()
    event = job.waiting(0, deadline=30.0).for_answer({1, 2})
    assert isinstance(event, steps.Lost)
    assert event.failure.kind == "WorkerLostError"
    assert event.failure.worker == 2
    assert "During save() of ckpt-1: worker 2 died (killed by signal 9)" in event.failure.message
    assert "Restart the job" in event.failure.message


def test_all_the_dead_are_named(job):
    job.job.kill(1, "power")
    job.job.kill(2, "signal 9")
    text = job.waiting(0).for_answer({1, 2}).failure.message
    assert "worker 1 died (power); worker 2 died (signal 9)" in text


def test_the_death_of_somebody_who_is_not_waited_for_does_not_matter(job):
    job.job.kill(2, "power")
    job.publish(job.keys.answer(1), REFUSAL)
    assert isinstance(job.waiting(0).for_answer({1}), steps.Answered)
    assert isinstance(job.waiting(1).for_opening(roll=True), steps.TimedOut)


def test_the_last_word_of_a_dead_worker_counts(job):
    job.publish(job.keys.answer(1), REFUSAL)
    job.job.kill(1, "power")
    assert job.waiting(0).for_answer({1, 2}) == steps.Answered(REFUSAL)


def test_the_death_of_the_chief_takes_the_engine_along(job):
    job.job.kill(0, "power")
    event = job.waiting(1).for_outcome()
    assert isinstance(event, steps.Lost)
    assert event.failure.worker == 0
    assert "worker 0 died: power" in event.failure.message
    assert "save() of ckpt-1" in event.failure.message


def test_who_has_died_is_looked_for_after_a_broken_collective(job, monkeypatch):
    monkeypatch.setattr(waiting, "DEATH", 5.0)
    timer = threading.Timer(0.1, job.job.kill, (2, "power"))
    timer.start()
    failure = job.waiting(1, deadline=30.0).for_death()
    assert failure.worker == 2
    assert job.waiting(1, deadline=0.0).for_death() == failure
    alone = Waiting(InProcessJob(1).coordinator(0), job.keys, "save()", Patience(30.0))
    assert alone.for_death() is None


def test_nobody_may_have_died_after_all(job, monkeypatch):
    monkeypatch.setattr(waiting, "DEATH", 0.1)
    assert job.waiting(1, deadline=30.0).for_death() is None
