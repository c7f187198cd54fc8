"""Arguments of `CheckpointCallback`: what they do, and which are refused."""

from __future__ import annotations

import inspect
import pathlib
import re

import pytest
import tensorflow as tf

import distckpt
from distckpt.errors import ConfigurationError

from .training import (
    REPLICAS,
    Interrupted,
    Watch,
    arrays,
    bits,
    fit,
    keras,
    make_model,
    only_best,
    run,
    train_with,
    uninterrupted,
)


def test_a_relative_directory_is_that_of_the_construction(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    callback = distckpt.keras.CheckpointCallback("run")
    monkeypatch.chdir(tmp_path / "there")
    make_model().fit(**arrays(), epochs=1, verbose=0, callbacks=[callback])
    assert list((tmp_path / "there").iterdir()) == []
    assert (tmp_path / "here/run/checkpoint").exists()


def test_a_policy_decides(tmp_path):
    options = distckpt.ManagerOptions(save_policy=distckpt.policies.AtSteps([3, 12]))
    _, _, callback = run(
        tmp_path, arrays(), save_freq=1, max_to_keep=None, options=options, save_at_end=False
    )
    assert len(callback.manager.checkpoints) == 2


def test_a_manager_that_was_given(tmp_path):
    def start(stop):
        model = make_model()
        extra = tf.Variable(0)
        checkpoint = tf.train.Checkpoint(net=model, extra=extra)
        manager = distckpt.CheckpointManager(checkpoint, tmp_path, 2, checkpoint_name="fit")
        callback = distckpt.keras.CheckpointCallback(manager, save_freq=4)
        assert callback.manager is manager
        try:
            extra.assign(7 if stop else 0)
            fit(model, arrays(), callback, Watch(stop))
        except Interrupted:
            pass
        return model, manager, int(extra.numpy())

    expected, _ = uninterrupted(arrays())
    start((1, 5))
    model, manager, extra = start(None)
    assert bits(model) == expected
    assert extra == 7
    assert manager.latest_checkpoint.startswith(str(tmp_path / "fit-"))


@pytest.mark.skipif(REPLICAS > 1, reason="Keras builds the model itself")
def test_a_model_that_is_not_built(tmp_path):
    callback = distckpt.keras.CheckpointCallback(tmp_path)
    with pytest.raises(ConfigurationError, match="must be built"):
        fit(make_model(built=False), arrays(), callback)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"save_freq": 0}, "save_freq must be"),
        ({"save_freq": True}, "save_freq must be"),
        ({"save_freq": False, "save_at_end": False}, "save_freq must be"),
        ({"save_best_only": True}, "needs the name of a metric"),
        ({"monitor": "score"}, "name does not say whether"),
        ({"monitor": 5}, "must be the name of a metric, got 5"),
        ({"remember": keras.callbacks.EarlyStopping("loss")}, "write remember="),
        ({"monitor": "loss", "mode": "best"}, "mode must be"),
        ({"preemption": True, "restore": False}, "do not give restore=False"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, arguments, text):
    with pytest.raises(ConfigurationError, match=text):
        distckpt.keras.CheckpointCallback(tmp_path, **arguments)


def test_options_that_are_the_managers(tmp_path):
    manager = distckpt.CheckpointManager(tf.train.Checkpoint(), tmp_path, 1)
    with pytest.raises(ConfigurationError, match="not the callback"):
        distckpt.keras.CheckpointCallback(manager, max_to_keep=7)
    first = distckpt.keras.CheckpointCallback(manager)
    fit(make_model(), arrays(), first, epochs=1)
    second = distckpt.keras.CheckpointCallback(manager)
    with pytest.raises(ConfigurationError, match="Give each a manager of its own"):
        fit(make_model(), arrays(), second, epochs=1)


def test_two_that_restore_are_refused(tmp_path):
    one, two = (distckpt.keras.CheckpointCallback(tmp_path / name) for name in "ab")
    with pytest.raises(ConfigurationError, match="Give restore=False to all but the one"):
        train_with(one, two)
    train_with(one, epochs=1)


def test_two_that_save_to_one_directory_are_refused(tmp_path):
    newest = distckpt.keras.CheckpointCallback(tmp_path)
    with pytest.raises(ConfigurationError, match="a directory of its own"):
        train_with(newest, only_best(f"{tmp_path}/"))
    train_with(newest, epochs=1)
    train_with(newest, epochs=2)


@pytest.mark.parametrize("other", ["ModelCheckpoint", "BackupAndRestore"])
def test_the_documentation_compares_every_argument_of_the_callback_that_is_replaced(other):
    page = (pathlib.Path(__file__).parents[3] / "docs" / "keras.md").read_text()
    table = page.partition(f"\n`{other}`:\n")[2].lstrip().partition("\n\n")[0]
    first = " ".join(row.split("|")[1] for row in table.splitlines())
    named = set(re.findall(r"`(\w+)`", first))
    signature = inspect.signature(getattr(keras.callbacks, other).__init__)
    assert set(signature.parameters) - {"self", "kwargs"} - named == set()
