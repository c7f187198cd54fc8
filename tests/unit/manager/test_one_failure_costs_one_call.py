"""One failure of the key-value store, or of one worker, costs one call and no later ones."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import tensorflow as tf

import distckpt
from distckpt.coordination.in_process import InProcessJob
from distckpt.errors import (
    ConfigurationError,
    DeadlineExceededError,
    DirectoryError,
    RestoreError,
    StateMismatchError,
    WorkerLostError,
)
from distckpt.manager import restore_wiring
from distckpt.messaging.waiting import Waiting
from distckpt.policies import EverySteps
from distckpt.storage.local import LocalStorage

from .programs import Job

DEADLINE = {"save_deadline": 2.0}


def every_step(job, steps, before=lambda worker, step: None):
    """Trains and saves in lockstep; each call, also one that fails, ends before the next step."""

    def program(worker):
        for step in range(1, steps + 1):
            worker.train()
            job.together()
            before(worker, step)
            worker.save()
            job.together()

    job.run(program)


def break_publish(monkeypatch, worker, breaks):
    """Lets `worker` fail to publish each key of which ``breaks(key)`` is true."""
    coordinator = worker.manager._common.job.coordinator
    publish = coordinator.publish

    def failing(key, value):
        if breaks(key):
            raise WorkerLostError("worker 0 cannot use the folder: no space left on device")
        publish(key, value)

    monkeypatch.setattr(coordinator, "publish", failing)


def break_first_outcome(monkeypatch, worker):
    """Lets `worker` fail to publish one outcome."""
    failed = []

    def breaks(key):
        if failed or not key.endswith("/outcome"):
            return False
        failed.append(key)
        return True

    break_publish(monkeypatch, worker, breaks)


def test_calls_whose_entries_could_not_be_published_cost_no_later_ones(tmp_path, monkeypatch):
    job, now = Job(2, tmp_path, options=DEADLINE), []
    break_publish(monkeypatch, job.workers[0], lambda key: now[-1] in (2, 3, 4))

    every_step(job, 7, lambda worker, step: worker.index or now.append(step))
    assert sorted(job.saved().values()) == [1, 5, 6, 7]
    assert [worker.failed_steps for worker in job.workers] == [[2, 3, 4], [2, 3, 4]]


@pytest.mark.parametrize("count", [2, 3])
def test_an_outcome_that_could_not_be_published_is_told_by_the_next_call(
    tmp_path, monkeypatch, count
):
    job = Job(count, tmp_path, options=DEADLINE)

    break_first_outcome(monkeypatch, job.workers[0])
    every_step(job, 4)
    assert sorted(job.saved().values()) == [1, 2, 3, 4]
    assert [worker.failed_steps for worker in job.workers] == [[], *[[1]] * (count - 1)]


def test_an_outcome_that_could_not_be_published_is_told_by_sync(tmp_path, monkeypatch):
    job = Job(2, tmp_path, options={**DEADLINE, "enable_async": True})

    break_first_outcome(monkeypatch, job.workers[0])

    def program(worker):
        worker.train()
        worker.save()
        worker.sync()
        job.together()
        worker.train()
        worker.save()
        worker.sync()

    job.run(program)
    assert sorted(job.saved().values()) == [1, 2]
    assert len(job.workers[0].failed_steps) == 0
    assert len(job.workers[1].failed_steps) <= 1


def test_a_constructor_that_fails_on_one_worker_counts_nowhere(tmp_path, monkeypatch):
    board = InProcessJob(2)
    coordinators = [board.coordinator(index) for index in range(2)]
    state = [tf.train.Checkpoint(step=tf.Variable(1)) for _ in range(2)]

    def make(index):
        options = distckpt.ManagerOptions(**DEADLINE)
        return distckpt.CheckpointManager(
            state[index], str(tmp_path), 3, coordinator=coordinators[index], options=options
        )

    def unreadable(self, directory):
        raise PermissionError(13, "Permission denied", directory)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "list", unreadable)
        with pytest.raises(DirectoryError):
            make(1)
    managers = [make(0), make(1)]
    job = Job.__new__(Job)
    job.workers = [type("Worker", (), {"index": i, "manager": managers[i]}) for i in range(2)]
    paths = []
    Job.run(job, lambda worker: paths.append(worker.manager.save()))
    assert paths == [str(tmp_path / "ckpt-1")] * 2


def test_a_program_that_goes_back_by_itself_saves_again_at_once(tmp_path):
    """It restores with plain TensorFlow, after one worker has left out a call."""
    job = Job(2, tmp_path, options=DEADLINE)

    def program(worker):
        worker.train(5)
        job.together()
        worker.save()
        job.together()
        worker.train(5)
        if worker.index == 0:
            worker.save()  # alone: it fails because no other worker comes
        job.together()
        worker.checkpoint.restore(worker.manager.latest_checkpoint)
        job.together()
        for _ in range(6):
            worker.train()
            worker.save()
            job.together()

    job.run(program)
    assert sorted(job.saved().values()) == [5, 6, 7, 8, 9, 10, 11]
    assert [worker.failed_steps for worker in job.workers] == [[10], []]


@pytest.mark.parametrize("interrupted", [0, 1])
@pytest.mark.parametrize(
    ("given", "saved"),
    [
        ({"checkpoint_interval": 3}, [1, 4, 7, 10]),
        ({"options": {"save_policy": EverySteps(3)}}, [3, 6, 9]),
    ],
)
def test_an_interrupt_after_the_commit_costs_no_later_call(
    tmp_path, monkeypatch, interrupted, given, saved
):
    """All workers count the interrupted save, because it is committed."""
    options = {**DEADLINE, **given.get("options", {})}
    job = Job(2, tmp_path, **{**given, "options": options})
    victim, finished = job.workers[interrupted], []
    finish = victim.manager._operations._saving._finish

    def interrupt(session, joined):
        finish(session, joined)
        finished.append(joined.name)
        if len(finished) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(victim.manager._operations._saving, "_finish", interrupt)

    def program(worker):
        for _ in range(10):
            worker.train()
            job.together()
            try:
                worker.save()
            except KeyboardInterrupt as error:
                worker.heard.append((int(worker.step.numpy()), error))
            job.together()

    job.run(program)
    assert sorted(job.saved().values()) == saved
    assert victim.failed_steps == saved[1:2]
    assert job.workers[1 - interrupted].failed_steps == []


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("interrupted", [0, 1])
def test_an_interrupt_while_the_background_save_begins_is_told_as_it_ends(
    tmp_path, monkeypatch, interrupted, begun
):
    """A save that never begins on one worker fails at once on all; one that goes on, on none."""
    job = Job(2, tmp_path, options={"save_deadline": 300.0, "enable_async": True})
    victim, start = job.workers[interrupted], threading.Thread.start
    background = victim.manager._operations.background
    struck, entered, hold = [], threading.Event(), threading.Event()
    hold.set()

    def interrupt(thread):
        if thread is background._thread and thread.name.endswith("ckpt-3") and not struck:
            struck.append(thread)
            entered.clear()
            if begun:
                hold.clear()
                start(thread)
                assert entered.wait(30)
            threading.Timer(0.5, hold.set).start()
            raise KeyboardInterrupt
        start(thread)

    finish = victim.manager._operations._saving._finish

    def slow_finish(session, joined, **options):
        entered.set()
        assert hold.wait(30)
        finish(session, joined, **options)

    monkeypatch.setattr(victim.manager._operations._saving, "_finish", slow_finish)
    monkeypatch.setattr(threading.Thread, "start", interrupt)

    def program(worker):
        for _ in range(6):
            worker.train()
            job.together()
            for call in (worker.save, worker.sync):
                try:
                    call()
                except KeyboardInterrupt as error:
                    worker.heard.append((int(worker.step.numpy()), error))
            job.together()

    job.run(program)
    assert struck
    assert not any(isinstance(e, DeadlineExceededError) for w in job.workers for e in w.errors)
    assert sorted(job.saved().values()) == ([1, 2, 3, 4, 5, 6] if begun else [1, 2, 4, 5, 6])
    told = [str(error) for error in job.workers[1 - interrupted].errors]
    assert ["KeyboardInterrupt" in text for text in told] == ([] if begun else [True])


def test_who_is_interrupted_after_it_has_reported_spoils_no_save(tmp_path, monkeypatch):
    """The chief still waits for another worker; the interrupted one's part is already written."""
    job = Job(3, tmp_path, options={"save_deadline": 60.0})
    struck, wait = [], Waiting.for_outcome

    def interrupted(waiting, *args, **kwargs):
        if waiting._coordinator.index == 1 and job.workers[1].step == 2 and not struck:
            struck.append(True)
            raise KeyboardInterrupt
        return wait(waiting, *args, **kwargs)

    monkeypatch.setattr(Waiting, "for_outcome", interrupted)
    slow = job.workers[2].manager._common.job.coordinator
    publish = slow.publish

    def publish_slowly(key, value):
        if "/answer-2-" in key:
            time.sleep(1.0)
        publish(key, value)

    monkeypatch.setattr(slow, "publish", publish_slowly)

    def program(worker):
        for _ in range(3):
            worker.train()
            job.together()
            with contextlib.suppress(KeyboardInterrupt):
                worker.save()
            job.together()

    job.run(program)
    assert struck
    assert sorted(job.saved().values()) == [1, 2, 3]


def test_states_of_different_restores_are_told_what_helps(tmp_path):
    job = Job(2, tmp_path, options=DEADLINE)
    job.run(lambda worker: worker.train() or worker.save())
    first, second = job.workers
    first.manager._common.job.log.generation += (
        1  # as if the second worker's restore was interrupted
    )

    job.run(lambda worker: worker.train() or worker.save())
    told = second.heard[-1][1]
    assert isinstance(told, StateMismatchError)
    assert "Call it again on all workers" in str(told)
    assert isinstance(first.heard[-1][1], BaseException)
    began = time.monotonic()
    job.run(lambda worker: worker.manager.restore_or_initialize())
    job.run(lambda worker: worker.train() or worker.save())
    assert isinstance(first.heard[-1][1], str)
    assert isinstance(second.heard[-1][1], str)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("failing", [0, 1])
def test_what_one_worker_could_not_restore_is_not_saved(tmp_path, monkeypatch, failing):
    """The program ignores the error, and the step counter is that of the checkpoint everywhere."""
    Job(2, tmp_path, options=DEADLINE).run(lambda worker: worker.train() or worker.save())
    job = Job(2, tmp_path, options=DEADLINE)
    whole, broken = restore_wiring.restore, []

    def half(target, *args, **kwargs):
        whole(target, *args, **kwargs)
        if not broken and target is job.workers[failing].checkpoint:
            broken.append(True)
            raise RestoreError("the disk is gone")

    monkeypatch.setattr(restore_wiring, "restore", half)

    def restore(worker):
        with contextlib.suppress(RestoreError):
            worker.manager.restore_or_initialize()

    job.run(restore)
    job.run(lambda worker: worker.train() or worker.save())
    told = job.workers[1].heard[-1][1]
    assert isinstance(told, StateMismatchError)
    assert "Call it again on all workers" in str(told)
    assert not isinstance(job.workers[0].heard[-1][1], str)
    job.run(restore)
    job.run(lambda worker: worker.train() or worker.save())
    assert all(isinstance(worker.heard[-1][1], str) for worker in job.workers)


def test_another_checkpoint_name_on_one_worker_is_refused(tmp_path):
    job = Job(2, tmp_path, options=DEADLINE)
    job.workers[1].manager._operations._calls._prefix = "other"
    job.run(lambda worker: worker.train() or worker.save())
    assert all(isinstance(w.heard[-1][1], ConfigurationError) for w in job.workers)
    assert "other-1" in str(job.workers[0].heard[-1][1])


@pytest.mark.parametrize("metrics", [{"loss": 10**400}, {"lo\ud800ss": 1.0}])
def test_metrics_that_cannot_be_kept_are_refused(tmp_path, metrics):
    manager = distckpt.CheckpointManager(tf.train.Checkpoint(), str(tmp_path), 1)
    with pytest.raises(ConfigurationError, match="metrics"):
        manager.save(metrics=metrics)
