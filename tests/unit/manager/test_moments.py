"""Workers call ``save()`` at different steps: no checkpoint mixes them, and the next call saves."""

from __future__ import annotations

import pytest

from distckpt.errors import DeadlineExceededError, StateMismatchError

from .programs import Job


def test_a_worker_ahead_of_the_chief_is_named_with_both_steps(tmp_path):
    job = Job(2, tmp_path, options={"save_deadline": 5})

    def program(worker):
        worker.train(5)
        if worker.index == 0:
            worker.save()  # worker 1 leaves this one out
        worker.train(5)
        worker.save()

    job.run(program)
    (mismatch,) = job.workers[0].errors
    assert isinstance(mismatch, StateMismatchError)
    assert "step 10" in str(mismatch)
    assert "step 5" in str(mismatch)
    assert job.saved() == {"ckpt-2": 10}
    assert not job.workers[1].errors


def test_a_worker_behind_the_chief_is_told_and_joins_its_next_call(tmp_path):
    job = Job(2, tmp_path, options={"save_deadline": 10})

    def program(worker):
        worker.train(5)
        if worker.index == 0:
            worker.train(5)
        worker.save()
        if worker.index == 1:
            worker.train(5)
            worker.save()

    job.run(program)
    assert job.saved() == {"ckpt-1": 10}
    (error,) = job.workers[1].errors
    assert isinstance(error, StateMismatchError)
    assert not job.workers[0].errors


def test_a_worker_that_has_not_restored_cannot_save_with_those_that_have(tmp_path):
    first = Job(2, tmp_path)
    first.run(lambda w: (w.train(7), w.save()))
    job = Job(2, tmp_path, options={"save_deadline": 3, "restore_deadline": 3})

    def program(worker):
        if worker.index == 0:
            worker.attempt(worker.manager.restore_or_initialize)
        worker.train(1)
        worker.save()

    job.run(program)
    assert job.saved() == {"ckpt-1": 7}
    assert isinstance(job.workers[1].heard[0][1], (StateMismatchError, DeadlineExceededError))


def test_the_numbers_are_the_chiefs(tmp_path):
    job = Job(2, tmp_path)
    job.workers[1].checkpoint.save_counter.assign(7)

    def program(worker):
        worker.train()
        worker.save()
        worker.train()
        worker.save()

    job.run(program)
    assert job.saved() == {"ckpt-1": 1, "ckpt-2": 2}
    assert [int(w.checkpoint.save_counter) for w in job.workers] == [2, 2]
    for worker in job.workers:
        assert [path for _, path in worker.heard] == [f"{tmp_path}/ckpt-{n}" for n in (1, 2)]


def leave_out_one_call(job, numbers):
    """Worker 0 leaves out its call at step 2; all others save at each step."""

    def program(worker):
        for step in range(1, 5):
            worker.train()
            if (worker.index, step) != (0, 2):
                worker.save(checkpoint_number=step if numbers else None)

    job.run(program)


def test_without_counters_a_call_that_is_left_out_is_noticed_only_at_the_end(tmp_path, caplog):
    """The warning is all that the program hears before."""
    job = Job(2, tmp_path, counted="nothing", options={"save_deadline": 3})
    leave_out_one_call(job, numbers=False)
    assert "Nothing in the state counts the steps" in caplog.text
    with pytest.raises(AssertionError, match="is a mixture of"):
        job.saved()
    chief, worker = job.workers
    assert not chief.errors
    assert worker.failed_steps == [4]  # the chief has made one call less
    assert isinstance(worker.errors[0], DeadlineExceededError)


def test_without_counters_numbers_that_the_program_gives_tell_steps_apart(tmp_path):
    job = Job(2, tmp_path, counted="nothing", options={"save_deadline": 3})
    leave_out_one_call(job, numbers=True)
    assert job.saved() == {"ckpt-1": 1}
    for worker in job.workers:
        assert isinstance(worker.errors[0], StateMismatchError)
        assert "ckpt-2" in str(worker.errors[0])
        assert "ckpt-3" in str(worker.errors[0])
