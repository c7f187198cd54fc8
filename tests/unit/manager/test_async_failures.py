"""A background save that fails: the next call raises its error once."""

from __future__ import annotations

import pytest
import tensorflow as tf

from distckpt import errors
from distckpt.core import layout

from .conftest import ASYNC


def test_sync_raises_the_error_once_and_the_manager_goes_on(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    gate.fails_at = layout.PROBE_FILE
    assert manager.save() == f"{tmp_path}/ckpt-1"
    with pytest.raises(errors.StorageFullError, match=r"No space left.*Free some space"):
        manager.sync()
    manager.sync()
    assert manager.checkpoints == []
    gate.fails_at = None
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/ckpt-2"]


def test_the_next_save_raises_the_error_and_saves_nothing(make, gate, tmp_path, checkpoint, caplog):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    gate.fails_at = layout.PROBE_FILE
    manager.save()
    manager._operations.background.wait()
    gate.fails_at = None
    assert "save() of ckpt-1 failed in the background" in caplog.text
    with pytest.raises(errors.DistckptError, match=r"^save\(\) of ckpt-1: .*No space left"):
        manager.save()
    assert manager.checkpoints == []
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/ckpt-2"]


def test_leaving_the_manager_raises_the_error(make, gate, tmp_path, checkpoint):
    gate.fails_at = layout.PROBE_FILE
    with (
        pytest.raises(errors.DistckptError, match="No space"),
        make(checkpoint, tmp_path, options=ASYNC) as manager,
    ):
        manager.save()


def test_an_interval_lets_a_failed_step_be_saved_again(make, gate, tmp_path, checkpoint):
    step = tf.Variable(10)
    manager = make(checkpoint, tmp_path, step_counter=step, checkpoint_interval=5, options=ASYNC)
    gate.fails_at = layout.PROBE_FILE
    assert manager.save() is not None
    with pytest.raises(errors.DistckptError):
        manager.sync()
    gate.fails_at = None
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.save() is None


def test_a_second_thread_that_saves_meanwhile_is_refused(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    gate.open.clear()
    manager.save()
    background = manager._operations.background
    with pytest.raises(errors.ConfigurationError, match="while another thread was saving"):
        background.start(lambda: None, "save() of ckpt-2")
    gate.open.set()
    manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1"]
