"""Several threads of one process, and callbacks, that call the manager."""

from __future__ import annotations

import contextlib
import threading

import pytest
import tensorflow as tf

from distckpt.coordination.in_process import InProcessJob
from distckpt.errors import ConfigurationError, SaveFailedError
from distckpt.saving.committer import Committer
from distckpt.testing.threads import run_in_threads

from .programs import MODES, Job, Worker


@pytest.mark.parametrize("options", MODES)
def test_threads_take_turns_in_the_order_in_which_they_come(tmp_path, options):
    job = Job(1, tmp_path, options=options, counted="nothing", max_to_keep=3)
    worker = job.workers[0]
    failed = []

    def save(number):
        for _ in range(10):
            try:
                worker.manager.save()
            except Exception as error:
                failed.append(error)

    run_in_threads(save, range(3), 60)
    worker.manager.sync()
    assert not failed
    assert worker.manager.checkpoints == [f"{tmp_path}/ckpt-{n}" for n in (28, 29, 30)]
    assert sorted(p.name for p in tmp_path.glob("*.index")) == [
        f"ckpt-{n}.index" for n in (28, 29, 30)
    ]


@pytest.mark.parametrize("options", MODES)
def test_a_callback_that_calls_the_manager_is_refused(tmp_path, options):
    worker = Job(1, tmp_path, options=options).workers[0]
    heard = []

    def call_back(path):
        heard.append(worker.attempt(worker.manager.save))

    worker.save(options=tf.train.CheckpointOptions(experimental_write_callbacks=[call_back]))
    worker.sync()
    assert isinstance(heard[0], ConfigurationError)
    assert worker.manager.save() == f"{tmp_path}/ckpt-2"
    worker.manager.sync()


@contextlib.contextmanager
def held_in_the_background(step):
    """Holds a step of the committer in background threads: yields (it is there, let it go on)."""
    is_there, go_on = threading.Event(), threading.Event()
    original = getattr(Committer, step)

    def hold(self, *arguments):
        if threading.current_thread() is not threading.main_thread():
            is_there.set()
            assert go_on.wait(60)
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Committer, step, hold)
        yield is_there, go_on


def test_an_older_save_of_another_manager_is_not_committed_over_a_newer_one(tmp_path):
    """As when a cell of a notebook is run again while its save is in flight."""
    job = Job(1, tmp_path, options={"enable_async": True}, counted="nothing")
    old = job.workers[0]
    new = Worker(InProcessJob(1), 0, tmp_path, counted="nothing")
    new.train(2)
    with held_in_the_background("merge") as (is_there, go_on):
        assert old.manager.save() == f"{tmp_path}/ckpt-1"
        assert is_there.wait(60)
        assert new.manager.save() == f"{tmp_path}/ckpt-1"
        go_on.set()
        with pytest.raises(SaveFailedError, match="Another manager of this process has begun"):
            old.manager.sync()
    assert job.saved() == {"ckpt-1": 2}
    assert old.manager.save() == f"{tmp_path}/ckpt-2"
    old.manager.sync()
    assert sorted(p.name for p in tmp_path.glob("*.pending*")) == []


def test_no_save_of_a_name_begins_while_another_manager_commits_it(tmp_path):
    job = Job(1, tmp_path, options={"enable_async": True}, counted="nothing")
    old = job.workers[0]
    new = Worker(InProcessJob(1), 0, tmp_path, counted="nothing")
    new.train(2)
    with held_in_the_background("_prepare") as (is_there, go_on):
        assert old.manager.save() == f"{tmp_path}/ckpt-1"
        assert is_there.wait(60)
        with pytest.raises(SaveFailedError, match="is just committing ckpt-1; nothing was saved"):
            new.manager.save(checkpoint_number=1)
        go_on.set()
        old.manager.sync()
    assert job.saved() == {"ckpt-1": 0}
    assert new.manager.save(checkpoint_number=1) == f"{tmp_path}/ckpt-1"
    assert job.saved() == {"ckpt-1": 2}
