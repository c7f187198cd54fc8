"""All workers hear the same answer, and the chief leaves last."""

from __future__ import annotations

import time

import pytest

from distckpt.coordination.in_process import InProcessJob
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import DeadlineExceededError, WorkerLostError
from distckpt.messaging.keys import Keys
from distckpt.preemption import shutdown
from distckpt.testing.threads import run_in_threads

KEYS = Keys("m", "grace", 0)


def ask(lefts, expected, *, seconds=20.0, absent=(), job=None):
    """Asks on all workers but the absent; returns what each was told, or has raised."""
    job = job or InProcessJob(len(lefts))
    answers = {}

    def run(worker):
        try:
            answers[worker] = shutdown.has_time(
                job.coordinator(worker),
                KEYS,
                lefts[worker],
                expected if worker == 0 else None,
                Patience(seconds),
            )
        except Exception as error:
            answers[worker] = error

    present = [worker for worker in range(len(lefts)) if worker not in absent]
    run_in_threads(run, present, 60)
    return [answers.get(worker) for worker in range(len(lefts))]


@pytest.mark.parametrize(
    ("lefts", "expected", "answer"),
    [
        ([None, 30.0, None], 10.0, True),
        ([None, 15.0, None], 10.0, False),
        ([30.0, 3.0, 30.0], 10.0, False),
        ([None, None, None], 10.0, True),
        ([None, 1.0, None], None, True),
        ([None, -1.0, None], None, False),
        ([20.0], 10.0, True),
        ([10.0], 10.0, False),
    ],
)
def test_all_hear_the_same(lefts, expected, answer):
    assert ask(lefts, expected) == [answer] * len(lefts)


def test_who_never_comes_is_named_to_the_chief():
    found = ask([1.0, None, None], 1.0, seconds=0.3, absent=(2,))
    assert isinstance(found[0], DeadlineExceededError)
    assert "worker 2 never came" in str(found[0])
    assert isinstance(found[1], DeadlineExceededError)


def test_who_has_died_is_named():
    job = InProcessJob(3)
    job.kill(2, "it has been evicted")
    found = ask([None, None, None], 1.0, absent=(2,), job=job)
    assert isinstance(found[0], WorkerLostError)


def test_the_chief_leaves_when_the_others_have():
    job, order = InProcessJob(3), []

    pauses = {0: 0.0, 1: 0.2, 2: 0.1}

    def go(worker):
        time.sleep(pauses[worker])
        order.append(f"{worker} leaves")
        shutdown.leave(job.coordinator(worker), KEYS)
        order.append(f"{worker} has left")

    run_in_threads(go, pauses, 60)
    assert order[0] == "0 leaves"
    assert order[-1] == "0 has left"


def test_the_chief_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(shutdown, "FAREWELL", 0.2)
    shutdown.leave(InProcessJob(2).coordinator(0), KEYS)
