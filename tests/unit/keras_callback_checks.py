"""`CheckpointCallback`: the same checks for Keras 3, under a strategy, and for tf-keras.

test_keras_callback.py runs them here, and in other processes: with ``TF_USE_LEGACY_KERAS`` set to
1, and with ``DISTCKPT_TEST_REPLICAS`` set to 2, under a `MirroredStrategy` of two CPUs.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
import tensorflow as tf

import distckpt
from distckpt.errors import ConfigurationError

keras = tf.keras
LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
REPLICAS = int(os.environ.get("DISTCKPT_TEST_REPLICAS", "1"))
if REPLICAS > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
EPOCHS, STEPS, BATCH = 3, 10, 4
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(STEPS * BATCH, 4)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


@functools.cache
def strategy():
    if REPLICAS == 1:
        return tf.distribute.get_strategy()
    # By default the gradients go through collectives, of which the CPUs may begin different ones
    # first ("Shape mismatch in the collective instance"), also without a callback.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(REPLICAS)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def make_model(seed=1, built=True, kind=keras, run_eagerly=True, **compiled):
    """A small model; eager because tracing it would take longer than training it."""
    kind.utils.set_random_seed(seed)
    with strategy().scope():
        model = kind.Sequential(
            [
                kind.layers.Dense(5, activation="tanh"),
                kind.layers.BatchNormalization(),
                *([] if LEGACY or kind is not keras else [kind.layers.Dropout(0.3)]),
                kind.layers.Dense(1),
            ]
        )
        if built:
            model.build((None, 4))
        optimizer = kind.optimizers.Adam(0.05)
        model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=run_eagerly, **compiled)
    return model


def bits(model):
    """The bytes of all weights, and of the optimizer's slots and its iterations."""
    optimizer = model.optimizer
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return [tf.convert_to_tensor(v).numpy().tobytes() for v in (*model.weights, *variables)]


class Interrupted(Exception):
    pass


class Watch(keras.callbacks.Callback):
    """Notes what `fit` does; ends it before a batch of an epoch, as if the program was killed."""

    def __init__(self, stop=None, soft=False):
        super().__init__()
        self.stop, self.soft, self.epochs, self.batches, self.logs = stop, soft, [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epochs[-1], batch) == self.stop:
            raise Interrupted

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append((self.epochs[-1], batch))
        if self.soft and (self.epochs[-1], batch) == self.soft:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append({name: float(value) for name, value in logs.items()})


def arrays():
    return {"x": X, "y": Y, "batch_size": BATCH, "shuffle": False}


def dataset():
    return {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)}


def of_unknown_size():
    return {"x": dataset()["x"].filter(lambda *_: True)}


def endless():
    return {"x": dataset()["x"].repeat(), "steps_per_epoch": 7}


INPUTS = {f.__name__: f for f in (arrays, dataset, of_unknown_size, endless)}


def fit(model, given, *callbacks, epochs=EPOCHS, **more):
    return model.fit(**given, epochs=epochs, verbose=0, callbacks=list(callbacks), **more)


def run(directory, given, stop=None, compiled=None, epochs=EPOCHS, **arguments):
    """One start of a program; returns the model, what `fit` did, and the callback."""
    model, watch = make_model(**(compiled or {})), Watch(stop)
    callback = distckpt.keras.CheckpointCallback(directory, **arguments)
    try:
        fit(model, given, callback, watch, epochs=epochs)
    except Interrupted:
        assert stop is not None
    else:
        assert stop is None or stop not in watch.batches
    return model, watch, callback


def uninterrupted(given, compiled=None, epochs=EPOCHS):
    model, watch = make_model(**(compiled or {})), Watch()
    fit(model, given, watch, epochs=epochs)
    return bits(model), watch


@pytest.mark.parametrize("name", INPUTS)
def test_any_interruption_leaves_no_trace(tmp_path, name):
    """Wherever it ends, the next start goes on with the very next batch."""
    given = INPUTS[name]
    compiled = {"run_eagerly": name != "dataset"}
    expected, watch = uninterrupted(given(), compiled)
    steps = 1 + max(batch for _, batch in watch.batches)
    arguments = {
        "save_freq": 3,
        "input_continues": name == "endless",
        "options": distckpt.ManagerOptions(enable_async=name == "dataset"),
    }
    # In the first epoch; after its last save; after the last batch of one; in the last.
    for stop in [(0, 5), (1, 1), (1, steps - 1), (2, 4), None]:
        model, seen, callback = run(tmp_path, given(), stop, compiled, **arguments)
        callback.manager.sync()
    assert bits(model) == expected
    assert seen.epochs == [2]
    assert len(callback.manager.checkpoints) == 3


def test_it_begins_where_the_last_save_was(tmp_path):
    run(tmp_path, arrays(), stop=(1, 5), save_freq=4)  # saved after 12 batches
    _, watch, callback = run(tmp_path, arrays(), stop=(1, 5), save_freq=4)
    assert watch.epochs == [1]
    assert callback.manager.latest_checkpoint.endswith("-3")
    passed = [batch for _, batch in watch.batches]
    # Keras 3 counts from the first batch of the epoch on; the first two train nothing.
    assert passed == ([2, 3, 4] if hasattr(make_model(), "_training_state") else [0, 1, 2, 3, 4])


def test_each_epoch(tmp_path):
    expected, _ = uninterrupted(arrays())
    _, _, callback = run(tmp_path, arrays(), stop=(2, 3))
    assert [p.rpartition("/")[2] for p in callback.manager.checkpoints] == ["ckpt-1", "ckpt-2"]
    model, watch, _ = run(tmp_path, arrays())
    assert watch.epochs == [2]
    assert bits(model) == expected
    again, watch, callback = run(tmp_path, arrays())
    assert watch.epochs == []  # it is complete
    assert bits(again) == expected
    assert len(callback.manager.checkpoints) == 3
    _, watch, _ = run(tmp_path, arrays(), epochs=5)
    assert watch.epochs == [3, 4]


def test_steps_per_execution(tmp_path):
    compiled = {"steps_per_execution": 2, "run_eagerly": False}
    expected, _ = uninterrupted(dataset(), compiled)
    run(tmp_path, dataset(), (1, 6), compiled, save_freq=4)
    model, watch, _ = run(tmp_path, dataset(), None, compiled, save_freq=4)
    assert bits(model) == expected
    assert watch.epochs == [1, 2]


def test_a_save_after_the_last_batch_comes_after_the_validation(tmp_path):
    model = make_model()
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=STEPS, monitor="val_loss")
    history = fit(model, arrays(), callback, validation_data=(X, Y)).history["val_loss"]
    assert saved_best(callback) == pytest.approx(min(history))
    assert callback.manager.latest_checkpoint.endswith(f"ckpt-{EPOCHS}")


def saved_best(callback):
    path = callback.manager.latest_checkpoint
    key = "keras_fit/best/.ATTRIBUTES/VARIABLE_VALUE"
    return float(tf.train.load_checkpoint(path).get_tensor(key))


class Scores(keras.callbacks.Callback):
    """Puts a metric into the logs."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = list(scores)

    def on_epoch_end(self, epoch, logs=None):
        if self.scores[epoch] is not None:
            logs["score"] = self.scores[epoch]


def best_of(directory, scores, **arguments):
    """Returns the epochs that a start has saved."""
    saved = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            now = callback.manager.latest_checkpoint
            if now != self.before:
                saved.append(epoch)
            self.before = now

        def on_train_begin(self, logs=None):
            self.before = callback.manager.latest_checkpoint

    callback = distckpt.keras.CheckpointCallback(
        directory, monitor="score", save_best_only=True, restore=False, **arguments
    )
    given = {**arrays(), "x": X[:BATCH], "y": Y[:BATCH]}
    fit(make_model(), given, Scores(*scores), callback, Look(), epochs=len(scores))
    return saved


def test_only_the_best(tmp_path):
    nan = float("nan")
    scores = [nan, 2.0, 2.0, None, 3.0, 1.5, nan]
    assert best_of(tmp_path / "min", scores, mode="min") == [1, 5]
    assert best_of(tmp_path / "max", scores, mode="max") == [1, 4]
    # After a restart the best value is that of the newest checkpoint, ...
    assert best_of(tmp_path / "min", [1.6, 1.4], mode="min") == [1]
    assert best_of(tmp_path / "max", [2.9, 3.0, 3.1], mode="max") == [2]
    # ... at first what was given.
    assert best_of(tmp_path / "start", [5.0, 4.0], mode="min", initial_value_threshold=4.5) == [1]


def early_stopping():
    return keras.callbacks.EarlyStopping("score", mode="min", patience=3)


def test_what_other_callbacks_have_noted(tmp_path):
    """`EarlyStopping` forgets in a new process how long it has waited."""
    given = {**arrays(), "x": X[:BATCH], "y": Y[:BATCH]}
    scores = [3.0, 1.0, *[2.0] * 6]

    def start(epochs, patience=3, **arguments):
        stopping = early_stopping()
        stopping.patience = patience
        callback = distckpt.keras.CheckpointCallback(tmp_path, remember=[stopping], **arguments)
        history = fit(make_model(), given, Scores(*scores), stopping, callback, epochs=epochs)
        return history.epoch, stopping

    assert start(3)[0] == [0, 1, 2]
    epochs, stopping = start(6)
    assert epochs == [3, 4]  # as if it had not been interrupted
    assert (stopping.best, stopping.wait, stopping.stopped_epoch) == (1.0, 3, 4)
    assert start(8)[0] == [5]
    epochs, stopping = start(8, patience=9)
    assert (epochs, stopping.patience) == ([6, 7], 9)  # what the program gives counts


def test_callbacks_of_another_kind_are_left_as_they_are(tmp_path):
    run(tmp_path, arrays(), remember=[Scores(1)])
    _, _, callback = run(tmp_path, arrays(), epochs=4, remember=[early_stopping(), Watch()])
    assert callback.manager.latest_checkpoint.endswith("-4")


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


def test_a_training_that_was_stopped_is_saved_where_it_was(tmp_path):
    expected, _ = uninterrupted(arrays())
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=4)
    fit(make_model(), arrays(), callback, Watch(soft=(1, 5)))  # EarlyStopping and the like
    model, watch, _ = run(tmp_path, arrays())
    assert watch.epochs == [1, 2]
    assert bits(model) == expected


def test_a_second_fit_goes_on_with_the_model_as_it_is(tmp_path):
    expected, _ = uninterrupted(arrays(), epochs=1)
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=4)
    run(tmp_path, arrays(), stop=(0, 9), save_freq=4)
    model, watch = make_model(), Watch()
    fit(model, arrays(), callback, watch, epochs=1)
    assert bits(model) == expected
    fit(model, arrays(), callback, watch, epochs=2)
    assert watch.epochs == [0, 0, 1]
    plain, again = make_model(), Watch()
    fit(plain, arrays(), again, epochs=1)
    fit(plain, arrays(), again, epochs=2)
    assert bits(model) == bits(plain)
    assert not isinstance(model.train_function, type(None))
    assert "Skip" not in type(model.train_function).__name__


def test_the_checkpoint_is_read_without_the_callback(tmp_path):
    model, _, callback = run(tmp_path, arrays())
    other = make_model(seed=2)
    with other.distribute_strategy.scope():
        other.optimizer.build(other.trainable_variables)
    path = tf.train.latest_checkpoint(str(tmp_path))
    assert path == callback.manager.latest_checkpoint
    plain = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
    plain.restore(path).assert_existing_objects_matched()
    assert bits(other) == bits(model)


def test_an_input_that_has_become_shorter(tmp_path):
    run(tmp_path, of_unknown_size(), stop=(1, 9), save_freq=3)
    with pytest.raises(ConfigurationError, match="ended after 5 batches, but 8 have been"):
        run(tmp_path, {"x": of_unknown_size()["x"].take(5)}, save_freq=3)


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
        ({"monitor": "score"}, "cannot be told by its name"),
        ({"monitor": "loss", "mode": "best"}, "mode must be"),
        ({"preemption": True, "restore": False}, "leave restore at True"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, arguments, text):
    with pytest.raises(ConfigurationError, match=text):
        distckpt.keras.CheckpointCallback(tmp_path, **arguments)


def test_options_that_are_the_managers(tmp_path):
    manager = distckpt.CheckpointManager(tf.train.Checkpoint(), tmp_path, 1)
    with pytest.raises(ConfigurationError, match="give them to it"):
        distckpt.keras.CheckpointCallback(manager, max_to_keep=7)
    first = distckpt.keras.CheckpointCallback(manager)
    fit(make_model(), arrays(), first, epochs=1)
    second = distckpt.keras.CheckpointCallback(manager)
    with pytest.raises(ConfigurationError, match="Give each a manager of its own"):
        fit(make_model(), arrays(), second, epochs=1)
