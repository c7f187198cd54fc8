"""A call that is interrupted on one worker is answered at once and costs no later call."""

from __future__ import annotations

import pytest

from distckpt.calls import save_calls
from distckpt.errors import DeadlineExceededError

from .programs import MODES, Job

# Whoever waits for a word that never comes, waits this long.
OPTIONS = {"save_deadline": 20.0}


def once(monkeypatch, target, name, armed, *, after=False):
    """Lets the next call of ``target.name`` raise KeyboardInterrupt while `armed` holds a word."""
    original = getattr(target, name)

    def interrupting(*arguments, **keywords):
        if not armed:
            return original(*arguments, **keywords)
        if after:
            original(*arguments, **keywords)
        armed.clear()
        raise KeyboardInterrupt

    monkeypatch.setattr(target, name, interrupting)


def judging(patch, calls, armed):
    """The worker has seen the chief's entry."""
    judge = save_calls.call_matching.on_save

    def interrupting(call, *arguments):
        if armed and calls._coordinator.index == 1:
            armed.clear()
            raise KeyboardInterrupt
        return judge(call, *arguments)

    patch.setattr(save_calls.call_matching, "on_save", interrupting)


def joining(patch, calls, armed):
    """The worker has joined the entry, and notes that."""
    once(patch, calls._calls, "pass_on", armed, after=True)


def heeding(patch, calls, armed):
    """The worker has joined the entry; the chief has published it."""
    once(patch, calls._schedule, "heed", armed)


def naming(patch, calls, armed):
    """The worker has joined the entry, and is about to begin."""
    once(patch, calls, "_name_of", armed)


def entering(patch, calls, armed):
    """The chief has counted an entry that it has not published."""
    once(patch, calls._calls, "catch_up", armed)


def closing(patch, calls, armed):
    """The same, after it has published what it owed."""
    once(patch, calls._calls, "_close_old_block", armed)


@pytest.mark.parametrize("mode", MODES, ids=["blocking", "async"])
@pytest.mark.parametrize(
    ("victim", "where"),
    [
        (1, judging),
        (1, joining),
        (1, heeding),
        (1, naming),
        (0, entering),
        (0, closing),
        (0, heeding),
    ],
)
def test_an_interrupted_call_is_answered_at_once_and_costs_no_later_one(
    tmp_path, monkeypatch, victim, where, mode
):
    job, armed = Job(2, tmp_path, options={**OPTIONS, **mode}), []
    where(monkeypatch, job.workers[victim].manager._operations._calls, armed)
    interrupted = []

    def program(worker):
        for step in range(1, 5):
            worker.train()
            job.together()
            if step == 2 and worker.index == victim:
                armed.append("interrupt")
            try:
                worker.save()
            except KeyboardInterrupt:
                interrupted.append((worker.index, step))
            worker.sync()
            job.together()

    job.run(program)
    assert interrupted == [(victim, 2)]
    assert sorted(job.saved().values()) == [1, 3, 4]
    for worker in job.workers:
        assert set(worker.failed_steps) <= {2}
        assert not any(isinstance(error, DeadlineExceededError) for error in worker.errors)
    told = [str(error) for error in job.workers[1 - victim].errors]
    assert any("KeyboardInterrupt" in text for text in told)
