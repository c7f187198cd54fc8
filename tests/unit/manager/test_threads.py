"""Several threads of one process, and callbacks, that call the manager."""

from __future__ import annotations

import threading

import pytest
import tensorflow as tf

from distckpt.errors import ConfigurationError

from .programs import MODES, Job


@pytest.mark.parametrize("options", MODES)
def test_threads_take_turns_in_the_order_in_which_they_come(tmp_path, options):
    job = Job(1, tmp_path, options=options, counted="nothing", max_to_keep=3)
    worker = job.workers[0]
    failed = []

    def save():
        for _ in range(10):
            try:
                worker.manager.save()
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=save) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
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
