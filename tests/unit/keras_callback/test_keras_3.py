"""Tests that run with Keras 3 only."""

from __future__ import annotations

import concurrent.futures
import contextlib

import pytest

import distckpt
from distckpt.errors import UnsupportedOptionError

from .training import arrays, bits, keras, make_model


def test_a_model_of_the_other_keras_than_tensorflows(tmp_path):
    """Without ``TF_USE_LEGACY_KERAS``, `tf_keras` is not the same Keras as `tf.keras`."""
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
    """Keras 3 may use a thread of its own for a callback that was given without a list."""
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=1, save_at_end=False)
    with contextlib.suppress(UnsupportedOptionError):
        make_model().fit(**arrays(), epochs=1, verbose=0, callbacks=callback)
    saved = callback.manager.checkpoints
    with concurrent.futures.ThreadPoolExecutor() as pool:
        call = pool.submit(callback.on_train_batch_end, 20)
    with pytest.raises(UnsupportedOptionError, match="Give fit a list"):
        call.result()
    assert callback.manager.checkpoints == saved
