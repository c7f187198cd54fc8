"""`distckpt.keras.CheckpointCallback` in one process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from distckpt.errors import UnsupportedOptionError
from distckpt.keras.monitor import Monitor, numbers_in

from .keras_callback_checks import *  # noqa: F403 - the checks themselves
from .keras_callback_checks import arrays, bits, distckpt, keras, make_model

HERE = pathlib.Path(__file__).parent
CHECKS = [str(HERE / "keras_callback_checks.py")]


def checks(*arguments, **env):
    done = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"), *CHECKS, *arguments],
        env={**os.environ, **env},
        cwd=HERE.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.timeout(600)
def test_tf_keras():
    checks(TF_USE_LEGACY_KERAS="1")


@pytest.mark.timeout(600)
def test_under_a_mirrored_strategy_of_two_devices():
    """Those that are about restoring: each takes many times as long as on one device."""
    checks("-k", "interruption or each_epoch or without", DISTCKPT_TEST_REPLICAS="2")


def test_a_model_of_the_other_keras_than_tensorflows(tmp_path):
    """Without ``TF_USE_LEGACY_KERAS``, `import tf_keras` is another Keras than `tf.keras`."""
    import tf_keras

    assert keras.__version__.startswith("3")
    expected = make_model(kind=tf_keras)
    expected.fit(**arrays(), epochs=2, verbose=0)
    for epochs in (1, 2):
        model = make_model(kind=tf_keras)
        callback = distckpt.keras.CheckpointCallback(tmp_path)
        history = model.fit(**arrays(), epochs=epochs, verbose=0, callbacks=[callback])
        assert history.epoch == [epochs - 1]
    assert bits(model) == bits(expected)


def test_nothing_is_saved_on_another_thread(tmp_path):
    """On one of its own Keras 3 may call a lone callback, which is in no list."""
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=1, save_at_end=False)
    with contextlib.suppress(UnsupportedOptionError):
        make_model().fit(**arrays(), epochs=1, verbose=0, callbacks=callback)
    saved = callback.manager.checkpoints
    with concurrent.futures.ThreadPoolExecutor() as pool:
        call = pool.submit(callback.on_train_batch_end, 20)
    with pytest.raises(UnsupportedOptionError, match="Give fit a list"):
        call.result()
    assert callback.manager.checkpoints == saved


PROGRAM = """
import os, signal, sys
sys.path.insert(0, {here!r})
from keras_callback_checks import *

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
        timeout=120,
        check=False,
        cwd=HERE.parents[1],
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


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("loss", False),
        ("val_loss", False),
        ("binary_crossentropy", False),
        ("mean_squared_error", False),
        ("val_accuracy", True),
        ("acc", True),
        ("auc_1", True),
        ("sparse_top_k_categorical_accuracy", True),
        ("val_precision", True),
    ],
)
def test_which_value_is_better(name, largest):
    monitor = Monitor(name, "auto")
    assert monitor.improves(2.0, 1.0) == largest
    assert monitor.improves(1.0, 2.0) != largest
    assert not monitor.improves(1.0, 1.0)
    assert monitor.improves(1.0, float("nan"))
    assert not monitor.improves(float("nan"), 1.0)
    assert not monitor.improves(float("nan"), float("nan"))


def test_what_is_a_number():
    assert numbers_in(None) == {}
    assert numbers_in({"a": 1, "b": [1.0, 2.0], "c": "text"}) == {"a": 1.0}
