"""A thread trains while another one saves: what is saved is of one step, or nothing is saved."""

from __future__ import annotations

import pytest

from distckpt.errors import StateMismatchError

from .programs import MODES, Job


@pytest.mark.parametrize("mode", MODES, ids=["blocking", "async"])
@pytest.mark.parametrize("counted", ["step_counter", "iterations"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_state_that_goes_on_before_it_is_taken_is_not_saved(
    tmp_path, monkeypatch, victim, counted, mode
):
    """The other thread takes a step after the worker has said at which step it is."""
    job, armed = Job(2, tmp_path, counted=counted, options=mode), []
    hold = type(job.workers[victim].manager._operations._saving)._hold

    def late(saving, joined):
        if armed and saving is job.workers[victim].manager._operations._saving:
            armed.pop().train()
        return hold(saving, joined)

    monkeypatch.setattr(type(job.workers[victim].manager._operations._saving), "_hold", late)

    def program(worker):
        worker.train()
        worker.save()
        worker.sync()
        job.together()
        worker.train()
        if worker.index == victim:
            armed.append(worker)
        worker.save()
        worker.sync()
        job.together()
        if worker.index != victim:
            worker.train()
        worker.train()
        worker.save()
        worker.sync()

    job.run(program)
    assert sorted(job.saved().values()) == [1, 4]
    for worker in job.workers:
        assert any(isinstance(error, StateMismatchError) for error in worker.errors)
        assert f"worker {victim}" in str(worker.errors[0])
        assert "another thread" in str(worker.errors[0])
