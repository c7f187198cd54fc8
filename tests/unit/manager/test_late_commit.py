"""A commit that takes longer than a worker waits, and how that worker hears of it."""

from __future__ import annotations

import time

import pytest

from distckpt.errors import CommitUnknownError

from .programs import COUNTED, MODES, Job


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("options", MODES)
def test_a_commit_that_comes_too_late_for_one_worker(tmp_path, counted, options, stalling):
    job = Job(2, tmp_path, counted=counted, options={"save_deadline": 1.0, **options})

    def program(worker):
        for number in range(1, 5):
            worker.train(5)
            if number == 2 and worker.index == 0:
                stalling(8.0)
            worker.save()
            if options:
                worker.sync()
        worker.sync()

    job.run(program)
    saved = job.saved()
    assert {5, 10, 20} <= set(saved.values())
    chief, worker = job.workers
    assert 10 in chief.saved_steps
    assert [type(e) for e in worker.errors][:1] == [CommitUnknownError]
    assert 20 in worker.saved_steps
    assert worker.manager.checkpoints == chief.manager.checkpoints


@pytest.mark.parametrize("options", MODES)
def test_who_asks_again_hears_how_the_unknown_save_has_ended(tmp_path, options, stalling):
    job = Job(2, tmp_path, options={"save_deadline": 1.0, **options})

    def program(worker):
        worker.train(5)
        if worker.index == 0:
            stalling(8.0)
        worker.save()
        worker.sync()
        if worker.index == 1:
            time.sleep(3.0)
            worker.save()
        job.together()
        worker.train()
        worker.save()
        worker.sync()

    job.run(program)
    assert job.saved() == {"ckpt-1": 5, "ckpt-2": 6}
    assert job.workers[1].heard[-3][1] == f"{tmp_path}/ckpt-1"


@pytest.mark.parametrize("when_busy", ["wait", "skip"])
def test_asking_again_after_a_failed_sync(tmp_path, when_busy, stalling):
    options = {"enable_async": True, "when_busy": when_busy, "save_deadline": 1.0}
    job = Job(2, tmp_path, options=options)

    def program(worker):
        for number in range(1, 6):
            worker.train()
            if number == 2 and worker.index == 0:
                stalling(8.0)
            worker.save()
            if isinstance(worker.sync(), Exception):
                worker.save()
                worker.sync()

    job.run(program)
    assert {1, 2, 4, 5} <= set(job.saved().values())
