"""A program that ended anywhere in `fit` continues as if it had not been interrupted."""

from __future__ import annotations

import pytest
import tensorflow as tf

import distckpt
from distckpt.errors import ConfigurationError

from .training import (
    INPUTS,
    Scores,
    Watch,
    arrays,
    bits,
    dataset,
    fit,
    keras,
    make_model,
    of_unknown_size,
    one_batch,
    run,
    uninterrupted,
)


@pytest.mark.parametrize("name", INPUTS)
def test_any_interruption_leaves_no_trace(tmp_path, name):
    """Wherever a program ends, the next start continues with the next batch."""
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
    # Keras 3 counts from the first batch of the epoch; the first two batches train nothing.
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


def early_stopping():
    return keras.callbacks.EarlyStopping("score", mode="min", patience=3)


def test_what_other_callbacks_have_noted(tmp_path):
    """`EarlyStopping` forgets in a new process how long it has waited."""
    given = one_batch()
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
    assert (epochs, stopping.patience) == ([6, 7], 9)  # the program's own argument counts


def test_callbacks_of_another_kind_are_left_as_they_are(tmp_path):
    run(tmp_path, arrays(), remember=[Scores(1)])
    _, _, callback = run(tmp_path, arrays(), epochs=4, remember=[early_stopping(), Watch()])
    assert callback.manager.latest_checkpoint.endswith("-4")


def test_a_training_that_was_stopped_is_saved_where_it_was(tmp_path):
    expected, _ = uninterrupted(arrays())
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=4)
    fit(make_model(), arrays(), callback, Watch(soft=(1, 5)))  # as EarlyStopping does
    model, watch, _ = run(tmp_path, arrays())
    assert watch.epochs == [1, 2]
    assert bits(model) == expected


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
