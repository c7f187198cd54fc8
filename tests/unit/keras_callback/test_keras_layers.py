"""What layers do not save, as docs/keras.md says. If a test fails, Keras has changed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from .training import keras

NUMBERS = np.array([[1.0], [3.0], [50.0], [70.0]], "float32")


def restored(kind, data, folder, **arguments):
    """Returns an adapted layer, and a new one with what a checkpoint has of the first."""
    adapted, fresh = kind(**arguments), kind(**arguments)
    adapted.adapt(data)
    if kind is keras.layers.Normalization:
        fresh.build((None, 1))
    path = tf.train.Checkpoint(layer=adapted).save(str(folder / "layer"))
    tf.train.Checkpoint(layer=fresh).restore(path).assert_existing_objects_matched()
    return adapted, fresh


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("StringLookup", ["red", "green"]),
        ("IntegerLookup", [5, 6]),
        ("TextVectorization", ["red green"]),
    ],
)
def test_a_vocabulary_is_not_saved(tmp_path, name, data):
    kind = getattr(keras.layers, name)
    adapted, fresh = restored(kind, tf.constant(data), tmp_path)
    assert len(adapted.get_vocabulary()) == len(fresh.get_vocabulary()) + 2


def test_a_normalization_does_not_use_what_was_restored_before_it_is_told(tmp_path):
    adapted, fresh = restored(keras.layers.Normalization, NUMBERS, tmp_path, axis=-1)
    assert float(fresh(NUMBERS)[0, 0]) == 1.0
    fresh.finalize_state()
    assert np.array_equal(fresh(NUMBERS), adapted(NUMBERS))


def test_the_boundaries_of_a_discretization_are_not_saved(tmp_path):
    adapted, fresh = restored(keras.layers.Discretization, NUMBERS, tmp_path, num_bins=2)
    assert list(adapted.bin_boundaries)
    assert not list(fresh.bin_boundaries or [])
