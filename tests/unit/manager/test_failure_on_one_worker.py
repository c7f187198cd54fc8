"""A call of ``save()`` that fails on one worker fails on all; the next call saves."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import pytest
import tensorflow as tf

from distckpt.errors import (
    ConfigurationError,
    DeadlineExceededError,
    DistckptError,
    SaveFailedError,
)
from distckpt.policies import EverySteps

from .faults import FAULTS, bad_metric, fail, in_a_function, unreadable_state, wrong_options
from .programs import COUNTED, MODES, Job


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("in_step", [True, False])
def test_the_call_after_a_failure_on_one_worker_saves(
    tmp_path, monkeypatch, counted, options, fault, in_step
):
    job = Job(2, tmp_path, counted=counted, options={"save_deadline": 20, **options})

    def program(worker):
        for number in range(1, 5):
            worker.train(5)
            if in_step:
                job.together()
            elif worker.index:
                time.sleep(0.05)
            if worker.index == 1 and number == 2:
                fault(worker, monkeypatch)
            else:
                worker.save()
        worker.sync()

    job.run(program)
    saved = set(job.saved().values())
    assert saved >= {5, 20}
    assert len(saved) == 3 - bool(options)  # a background save fails in the call after it
    assert max(len(worker.errors) for worker in job.workers) <= 2
    for worker in job.workers:
        assert not any(isinstance(e, DeadlineExceededError) for e in worker.errors)


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        *itertools.product([bad_metric, wrong_options], COUNTED),
        (in_a_function, "iterations"),  # not with a step counter, which has no value there
        (in_a_function, "nothing"),
    ],
)
@pytest.mark.parametrize("guilty", [0, 1])
@pytest.mark.parametrize("in_step", [True, False])
def test_a_failure_in_a_call_that_saves_nowhere_costs_no_later_call(
    tmp_path, monkeypatch, counted, guilty, fault, in_step
):
    options = {"save_deadline": 20, "save_policy": EverySteps(2)}
    job = Job(2, tmp_path, counted=counted, options=options)

    def program(worker):
        for number in range(1, 7):
            worker.train()
            if in_step:
                job.together()
            if worker.index == guilty and number in (1, 3):
                fault(worker, monkeypatch)
            else:
                worker.save()

    job.run(program)
    assert set(job.saved().values()) == {2, 4, 6}
    assert job.workers[guilty].failed_steps == [1, 3]
    assert job.workers[1 - guilty].failed_steps == []


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("times", [2, 4])
def test_each_refusal_of_a_worker_that_comes_first_answers_one_call(
    tmp_path, monkeypatch, counted, count, times
):
    """The program tries again in the same step, on all workers, before it trains on."""
    job = Job(count, tmp_path, counted=counted, options={"save_deadline": 20})
    refused = threading.Event()

    def program(worker):
        for number in range(1, 5):
            worker.train()
            job.together()
            if number != 2:
                worker.save()
            elif worker.index == 1:
                for _ in range(times):
                    bad_metric(worker, monkeypatch)
                refused.set()
            else:
                refused.wait(120)
                for _ in range(times):
                    worker.save()
            job.together()

    job.run(program)
    assert set(job.saved().values()) == {1, 3, 4}
    for worker in job.workers:
        assert worker.failed_steps == [2] * times
        assert all("n/a" in str(error) for error in worker.errors)


@pytest.mark.parametrize("counted", ["step_counter", "iterations"])
def test_refusals_that_no_call_has_asked_for_cost_no_later_call(tmp_path, monkeypatch, counted):
    """Only one worker tries again in the same step, and later in another one."""
    job = Job(2, tmp_path, counted=counted, options={"save_deadline": 20})
    refused = threading.Event()

    def program(worker):
        for number in range(1, 7):
            worker.train()
            job.together()
            times = {2: 3, 3: 2}.get(number, 0)
            for _ in range(times if worker.index else 0):
                bad_metric(worker, monkeypatch)
            if worker.index and number == 2:
                refused.set()
            if number == 2 and worker.index == 0:
                refused.wait(120)
            if not (times and worker.index):
                worker.save()
            job.together()

    job.run(program)
    assert set(job.saved().values()) == {1, 4, 5, 6}
    assert [worker.failed_steps for worker in job.workers] == [[2, 3], [2, 2, 2, 3, 3]]


@pytest.mark.parametrize("fault", [wrong_options, in_a_function, unreadable_state])
@pytest.mark.parametrize("guilty", [0, 1])
def test_nobody_waits_for_a_worker_whose_call_was_wrong(tmp_path, monkeypatch, fault, guilty):
    job = Job(2, tmp_path, options={"save_deadline": 300})

    def program(worker):
        worker.train()
        if worker.index == guilty:
            fault(worker, monkeypatch)
        else:
            worker.save()

    job.run(program)
    for worker in job.workers:
        (error,) = worker.errors
        assert not isinstance(error, DeadlineExceededError)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), (1.0, 2.0)])
def test_a_step_that_is_no_number_is_named_on_all(tmp_path, wrong):
    options = {"save_deadline": 20}
    job = Job(2, tmp_path, counted="nothing", step_counter=tf.Variable(wrong), options=options)
    job.run(lambda worker: worker.save())
    for worker in job.workers:
        assert isinstance(worker.heard[0][1], ConfigurationError)
        assert "step_counter must be one finite number" in str(worker.heard[0][1])


class Interrupting(dict):
    """Metrics whose reading is interrupted, as by Ctrl-C."""

    def items(self):
        raise KeyboardInterrupt


def test_an_interrupt_of_another_worker_is_named_with_what_to_do(tmp_path):
    job = Job(2, tmp_path)

    def program(worker):
        worker.train()
        with contextlib.suppress(KeyboardInterrupt):
            worker.save(metrics=Interrupting() if worker.index else {})
        worker.train()
        worker.save()

    job.run(program)
    text = str(job.workers[0].heard[0][1])
    assert "worker 1 was interrupted (KeyboardInterrupt). Call the method again" in text
    assert set(job.saved().values()) == {2}


def test_both_workers_hear_whose_metrics_were_wrong(tmp_path):
    job = Job(2, tmp_path)
    job.run(lambda w: w.save(metrics={"loss": "n/a" if w.index else 1.0}))
    chief, worker = (w.heard[0][1] for w in job.workers)
    assert isinstance(chief, DistckptError)
    assert isinstance(worker, ConfigurationError)
    assert chief.worker == 1
    assert "n/a" in str(chief)


def test_the_chief_alone_raises_and_the_others_hear_of_it_at_once(tmp_path):
    job = Job(3, tmp_path)

    def program(worker):
        worker.train()
        worker.save(metrics={} if worker.index else {"loss": "n/a"})
        worker.train()
        worker.save()

    began = time.monotonic()
    job.run(program)
    assert time.monotonic() - began < 20
    for worker in job.workers:
        assert "n/a" in str(worker.heard[0][1])
    assert job.saved() == {"ckpt-1": 2}


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("where", [0, 1])
def test_an_error_of_a_write_callback_is_logged_and_changes_nothing(
    tmp_path, options, where, caplog
):
    job = Job(2, tmp_path, options=options)

    def program(worker):
        for number in range(1, 5):
            worker.train(5)
            job.together()
            broken = worker.index == where and number == 2
            callbacks = [fail] if broken else []
            worker.save(
                options=tf.train.CheckpointOptions(
                    experimental_write_callbacks=callbacks, enable_async=bool(options)
                )
            )
        worker.sync()

    job.run(program)
    assert job.saved() == {f"ckpt-{n}": 5 * n for n in range(1, 5)}
    assert not any(worker.errors for worker in job.workers)
    assert "write callback of ckpt-2" in caplog.text
    assert "on one worker" in caplog.text


@pytest.mark.parametrize("policy", [EverySteps(1), None])
@pytest.mark.parametrize("options", MODES)
def test_both_ask_again_at_once_after_a_failure_on_one_worker(
    tmp_path, monkeypatch, options, policy
):
    job = Job(2, tmp_path, options={"save_deadline": 20, "save_policy": policy, **options})

    def program(worker):
        for number in range(1, 5):
            worker.train()
            if worker.index == 1 and number == 2:
                results = [bad_metric(worker, monkeypatch)]
            else:
                results = [worker.save(), worker.sync()]
            if any(isinstance(result, Exception) for result in results):
                worker.save()
                worker.sync()

    job.run(program)
    assert set(job.saved().values()) == {1, 2, 3, 4}
    assert [len(worker.errors) for worker in job.workers] == [1, 1]


def test_copies_are_compared_by_turns_that_all_take_alike(tmp_path, monkeypatch):
    options = {"check_replicas": "error", "check_replicas_every": 3, "save_deadline": 20}
    job = Job(2, tmp_path, options=options)

    def program(worker):
        for number in range(1, 7):
            worker.train()
            job.together()
            if worker.index == 1 and number == 2:
                bad_metric(worker, monkeypatch)
            else:
                worker.save()

    job.run(program)
    assert set(job.saved().values()) == {1, 3, 4, 5, 6}


def test_an_error_of_the_save_before_is_the_same_on_all(tmp_path, monkeypatch):
    job = Job(2, tmp_path, options={"enable_async": True, "save_deadline": 20})

    def program(worker):
        worker.train()
        if worker.index:
            unreadable_state(worker, monkeypatch)
        else:
            worker.save()
        job.together()
        worker.train()
        worker.save()
        worker.train()
        worker.save()
        worker.sync()

    job.run(program)
    chief, worker = job.workers
    assert isinstance(chief.heard[1][1], SaveFailedError)
    assert str(chief.heard[1][1]) == str(worker.heard[1][1])
    assert job.saved() == {"ckpt-2": 3}
