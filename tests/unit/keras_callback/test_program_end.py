"""A program that a signal ends in the middle of `fit`, and its next start."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import distckpt

HERE = pathlib.Path(__file__).parent

PROGRAM = """
import os, signal, sys
sys.path.insert(0, {here!r})
from training import *

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == {at!r}:
            os.kill(os.getpid(), signal.{signal})

model = make_model()
callback = distckpt.keras.CheckpointCallback({directory!r}, save_freq=3, preemption={preemption})
fit(model, dataset(), callback, Kill(), Watch())
print("same", bits(model) == uninterrupted(dataset())[0], model.history.epoch)
"""


def start(directory, at, name="SIGKILL"):
    preemption = name == "SIGTERM"
    program = PROGRAM.format(
        here=str(HERE), at=at, directory=str(directory), preemption=preemption, signal=name
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=HERE.parents[2],
    )


def test_kill_9_within_an_epoch(tmp_path):
    killed = start(tmp_path, (1, 5))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = start(tmp_path, None)
    assert "same True [1, 2]" in resumed.stdout, resumed.stderr


def test_sigterm_within_an_epoch(tmp_path):
    ended = start(tmp_path, (1, 4), "SIGTERM")
    assert ended.returncode == distckpt.exit_codes.PREEMPTED, ended.stderr
    resumed = start(tmp_path, None, "SIGTERM")
    assert "same True [1, 2]" in resumed.stdout, resumed.stderr
