"""Saves with a condition: the chief decides, and all workers follow."""

from __future__ import annotations

import time

import pytest

from distckpt.calls.save_request import Condition

from .programs import MODES, Job


def save_if(worker, word, heard):
    """Calls `save` with a condition: the chief answers `word`; the other worker is not asked."""

    def decide():
        assert worker.index == 0, "only the chief is asked"
        if isinstance(word, Exception):
            raise word
        return word

    condition = Condition(decide, heard[worker.index].append)
    return worker.attempt(lambda: worker.manager._save_if(condition))


@pytest.mark.parametrize("options", MODES)
def test_a_condition_is_the_chiefs_and_nobody_counts_it(tmp_path, options):
    job = Job(2, tmp_path, options={"save_deadline": 20, **options})
    heard = [], []

    def program(worker):
        for step in range(1, 9):
            worker.train()
            job.together()
            if worker.index == 1 and step == 2:
                continue  # this worker has failed elsewhere, and the chief's answer is no
            save_if(worker, step / 7 if step % 2 else None, heard)
            if step % 2:
                worker.sync()

    job.run(program)
    assert set(job.saved().values()) == {1, 3, 5, 7}
    assert heard == ([1 / 7, 3 / 7, 5 / 7, 1.0], [1 / 7, 3 / 7, 5 / 7, 1.0])
    assert not job.workers[0].errors + job.workers[1].errors


def test_a_condition_that_raises_is_an_error_on_all(tmp_path):
    job = Job(2, tmp_path, options={"save_deadline": 20})
    heard = [], []

    def program(worker):
        for word in (1.0, ValueError("no such metric"), 3.0):
            worker.train()
            job.together()
            save_if(worker, word, heard)

    job.run(program)
    assert set(job.saved().values()) == {1, 3}
    for worker in job.workers:
        (error,) = worker.errors
        assert "no such metric" in str(error)


def test_nobody_waits_for_the_save_in_flight_when_the_condition_says_no(tmp_path, stalling):
    job = Job(2, tmp_path, options={"enable_async": True})
    heard, seconds = ([], []), []

    def program(worker):
        if worker.index == 0:
            stalling(4.0)
        for word in (1.0, None, 3.0):
            worker.train()
            job.together()
            began = time.monotonic()
            save_if(worker, word, heard)
            if word is None:
                seconds.append(time.monotonic() - began)
        worker.sync()

    job.run(program)
    assert set(job.saved().values()) == {1, 3}
    assert max(seconds) < 2.0
