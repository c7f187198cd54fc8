"""Keras models and optimizers: Keras 3 and, where ``TF_USE_LEGACY_KERAS`` is 1, tf-keras.

test_keras_2_and_strategies.py runs these tests with that.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf

from .conftest import bits, program

keras = tf.keras


@pytest.fixture(autouse=True, scope="module")
def _version():
    legacy = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
    assert keras.layers.Dense.__module__.startswith("tf_keras." if legacy else "keras.")


def data(seed):
    random = np.random.default_rng(seed)
    return random.normal(size=(16, 4)).astype("float32"), random.normal(size=(16, 2))


def layers():
    return [
        keras.layers.Dense(5, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3, seed=7),
        keras.layers.Dense(2),
    ]


def start(seed):
    """Begins a program. The workers of a job run one after the other here, with the same names."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)


def fit(model, seed, optimizer="adam"):
    model.compile(optimizer, loss="mse", run_eagerly=True)  # tracing would take longer
    model.fit(*data(seed), batch_size=16, epochs=1, verbose=0)
    return model


def fitted_model(seed, optimizer="adam"):
    start(seed)
    model = keras.Sequential([keras.Input([4]), *layers()])
    return fit(model, seed, optimizer)


def state_of(model):
    optimizer = model.optimizer
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return [bits(tf.convert_to_tensor(v)) for v in (*model.weights, *variables)]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        # In attributes: Keras 3 shows `tf.train.Checkpoint` no layers in lists.
        self.first, self.norm, self.dropout, self.last = layers()

    def call(self, inputs, training=False):
        hidden = self.norm(self.first(inputs), training=training)
        return self.last(self.dropout(hidden, training=training))


def test_a_fitted_model_and_its_optimizer(round_trips):
    def build(number):
        model = fitted_model(number)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        return program(checkpoint, lambda: state_of(model))

    round_trips.run(build, whole=False)


def test_a_model_as_the_root(round_trips):
    def build(number):
        model = fitted_model(number)
        checkpoint = tf.train.Checkpoint(model)
        return program(checkpoint, lambda: state_of(model))

    round_trips.run(build, workers=False, whole=False)


def test_a_subclassed_model(round_trips):
    def build(number):
        start(number)
        model = fit(Subclassed(), number)
        checkpoint = tf.train.Checkpoint(model=model)
        return program(checkpoint, lambda: state_of(model))

    round_trips.run(build, whole=False)


def test_training_goes_on_as_if_nothing_had_happened(make, tmp_path):
    model = fitted_model(1, "adam")
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    steps = model.optimizer.iterations
    manager = make(checkpoint, tmp_path, 1, step_counter=steps, checkpoint_interval=1)
    assert manager.save(steps) == f"{tmp_path}/ckpt-1"
    other = fitted_model(2, "adam")
    other_checkpoint = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
    make(other_checkpoint, tmp_path).restore_or_initialize()
    for trained in (model, other):
        keras.utils.set_random_seed(9)
        trained.layers[2].rate = 0.0  # what Dropout draws is not part of every checkpoint
        trained.fit(*data(3), batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert state_of(other) == state_of(model)


def test_a_model_restored_before_it_is_built(make, tmp_path):
    model = fitted_model(1)
    make(tf.train.Checkpoint(model=model), tmp_path).save()
    for factory in (make, tf.train.CheckpointManager):
        start(2)
        late = keras.Sequential(layers())
        assert factory(tf.train.Checkpoint(model=late), tmp_path, 1).restore_or_initialize()
        late.build([None, 4])
        assert [w.tolist() for w in late.get_weights()] == [w.tolist() for w in model.get_weights()]
