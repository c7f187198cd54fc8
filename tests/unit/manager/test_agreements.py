"""``agree_on()``: all workers get the chief's value."""

from __future__ import annotations

from distckpt.errors import ConfigurationError

from .programs import Job


def test_agreements_stay_in_step_whatever_one_worker_asks(tmp_path):
    job = Job(2, tmp_path, options={"save_deadline": 10})
    found = {}

    def program(worker):
        found[worker.index] = []
        for number in range(5):
            value = object() if worker.index == 1 and number == 2 else [worker.index, number]
            found[worker.index].append(worker.attempt(lambda v=value: worker.manager.agree_on(v)))

    job.run(program)
    assert found[0] == [[0, n] for n in range(5)]
    assert isinstance(found[1][2], TypeError)
    del found[1][2]
    assert found[1] == [[0, n] for n in (0, 1, 3, 4)]


def test_a_value_of_the_chief_that_cannot_be_told_is_an_error_on_all(tmp_path):
    job = Job(2, tmp_path, options={"save_deadline": 10})
    job.run(lambda w: w.attempt(lambda: w.manager.agree_on(1 if w.index else object())))
    assert isinstance(job.workers[0].heard[0][1], TypeError)
    assert isinstance(job.workers[1].heard[0][1], ConfigurationError)
