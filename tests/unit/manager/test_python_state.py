"""State that is not a variable is read at each save, and may be unreadable on one worker."""

from __future__ import annotations

import pytest
import tensorflow as tf

from distckpt.errors import SaveFailedError
from distckpt.policies import EverySteps

from .faults import Broken
from .programs import COUNTED, MODES, Job


class _Count(tf.train.experimental.PythonState):
    """State that is not a variable: each save reads it, and it can be unreadable."""

    number = 0
    is_broken = False

    def serialize(self):
        if self.is_broken:
            raise Broken("this state cannot be read")
        return str(self.number)

    def deserialize(self, text):
        self.number = int(text)


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("policy", [None, EverySteps(5)])
@pytest.mark.parametrize("where", [0, 1])
def test_a_checkpoint_holds_what_is_no_variable_as_it_is_at_the_save(
    tmp_path, counted, policy, where
):
    job = Job(2, tmp_path, counted=counted, options={"save_policy": policy})
    for worker in job.workers:
        worker.checkpoint.count = _Count()

    def program(worker):
        for number in range(1, 11):
            worker.train()
            worker.checkpoint.count.number = number
            if number == 1 and worker.index == where:
                worker.save(metrics={"loss": "n/a"})
            else:
                worker.save()

    job.run(program)
    saved = job.saved()
    assert set(saved.values()) == (set(range(2, 11)) if policy is None else {5, 10})
    for name, step in saved.items():
        reader = tf.train.load_checkpoint(f"{tmp_path}/{name}")
        assert int(reader.get_tensor("count/.ATTRIBUTES/py_state")) == step
        counter = reader.get_tensor("save_counter/.ATTRIBUTES/VARIABLE_VALUE")
        assert name == f"ckpt-{counter}"


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("when", [1, 3])
def test_state_that_one_worker_cannot_read(tmp_path, counted, options, where, when):
    job = Job(2, tmp_path, counted=counted, options={"save_deadline": 20, **options})
    for worker in job.workers:
        worker.checkpoint.count = _Count()

    def program(worker):
        for number in range(1, 7):
            worker.train()
            job.together()
            worker.checkpoint.count.is_broken = (worker.index, number) == (where, when)
            worker.save()
        worker.sync()

    job.run(program)
    assert {1, 2, 3, 4, 5, 6} - set(job.saved().values()) <= {when, when + bool(options)}
    for worker in job.workers:
        assert any(f"worker {where} could not read its state" in str(e) for e in worker.errors)
        assert all(isinstance(e, SaveFailedError) for e in worker.errors), worker.heard
        assert len(worker.errors) <= 2


@pytest.mark.parametrize("where", [0, 1])
def test_state_that_can_be_read_only_after_the_restore(tmp_path, where):
    for starts in (0, 1):
        job = Job(2, tmp_path, counted="iterations", options={"save_deadline": 10})
        for worker in job.workers:
            worker.checkpoint.count = _Count()
            worker.checkpoint.count.is_broken = bool(starts) and worker.index == where

        def program(worker):
            worker.attempt(worker.manager.restore_or_initialize)
            worker.checkpoint.count.is_broken = False
            worker.train()
            worker.save()

        job.run(program)
        assert not any(worker.errors for worker in job.workers)
        assert job.saved() == {f"ckpt-{n + 1}": n + 1 for n in range(starts + 1)}
