"""Workers that end with a save in flight, when no thread can be started any more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tensorflow as tf

from distckpt.launcher import LocalCluster
from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage

pytestmark = pytest.mark.cluster
PROGRAM = str(Path(__file__).with_name("ending.py"))
ENV = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_save_in_flight_is_committed(tmp_path, workers):
    with LocalCluster([sys.executable, PROGRAM, str(tmp_path)], workers=workers, env=ENV) as job:
        ended = job.wait(timeout=400)
        texts = [job.output(worker.index) for worker in ended]
    assert [worker.returncode for worker in ended] == [0] * workers, texts
    assert all("NO THREADS" in text for text in texts)
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-2"
    Verifier(LocalStorage(), str(tmp_path)).verify("ckpt-2")
    reader = tf.train.load_checkpoint(f"{tmp_path}/ckpt-2")
    for number in range(20):
        found = reader.get_tensor(f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE")
        assert (found == number + 1).all()
