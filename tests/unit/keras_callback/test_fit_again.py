"""Several calls of `fit` in one program, also after one that failed."""

from __future__ import annotations

import pytest
import tensorflow as tf

import distckpt

from .training import (
    BATCH,
    FEW,
    LEGACY,
    FailsAt,
    Interrupted,
    Watch,
    X,
    Y,
    arrays,
    bits,
    few,
    fit,
    kept,
    keras,
    make_model,
    only_best,
    run,
    strategy,
    train_with,
    uninterrupted,
)


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


def test_another_model_or_optimizer_in_a_later_fit_is_the_one_that_is_saved(tmp_path):
    callback = distckpt.keras.CheckpointCallback(tmp_path)
    train_with(callback, epochs=1)
    model, _ = train_with(callback, model=make_model(seed=2), epochs=1)
    for _ in range(2):
        other = make_model(seed=3)
        with other.distribute_strategy.scope():
            other.optimizer.build(other.trainable_variables)
        path = tf.train.latest_checkpoint(str(tmp_path))
        plain = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
        plain.restore(path).assert_existing_objects_matched()
        assert bits(other) == bits(model)
        with strategy().scope():
            model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
        train_with(callback, model=model, epochs=1)


def test_a_fit_after_one_that_was_interrupted_while_it_passed_over_batches(tmp_path):
    run(tmp_path, arrays(), stop=(1, 5), save_freq=4)
    passed = run(tmp_path, arrays(), stop=(1, 0 if not LEGACY else 2), save_freq=4)
    model, _, callback = passed
    before = int(model.optimizer.iterations.numpy())
    train_with(callback, model=model, epochs=1)
    assert int(model.optimizer.iterations.numpy()) == before + FEW
    assert "Skip" not in type(model.train_function).__name__


def test_a_restore_that_failed_is_made_in_the_next_fit(tmp_path, monkeypatch):
    """Otherwise that fit would train from the beginning, and replace good checkpoints."""
    run(tmp_path, arrays(), stop=(1, 5), save_freq=4)
    model, watch = make_model(), Watch()
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=4)
    with monkeypatch.context() as patch:
        patch.setattr(distckpt.CheckpointManager, "restore_or_initialize", FailsAt("").fail)
        with pytest.raises(Interrupted):
            fit(model, arrays(), callback, watch)
    fit(model, arrays(), callback, watch)
    assert watch.epochs == [1, 2]
    assert bits(model) == uninterrupted(arrays())[0]


@pytest.mark.parametrize("method", ["on_train_begin", "on_epoch_begin", "on_train_batch_begin"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_no_batches_are_lost_after_a_fit_that_ended_while_it_began(tmp_path, method, epoch):
    """This holds whether the next `fit` has a new callback or none."""
    expected, _ = uninterrupted(arrays(), epochs=2)
    run(tmp_path, arrays(), stop=(epoch, 5), epochs=2, save_freq=4, save_at_end=False)

    def ended():
        model = make_model()
        callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=100, save_at_end=False)
        with pytest.raises(Interrupted):
            fit(model, arrays(), callback, FailsAt(method), epochs=2)
        return model

    model = ended()
    callback = distckpt.keras.CheckpointCallback(tmp_path, save_freq=100, save_at_end=False)
    fit(model, arrays(), callback, epochs=2)
    assert bits(model) == expected

    model, watch = ended(), Watch()
    before = int(model.optimizer.iterations.numpy())
    fit(model, few(), watch, epochs=1)
    assert int(model.optimizer.iterations.numpy()) == before + FEW
    assert watch.epochs == [0]
    if method != "on_train_batch_begin":
        model = ended()
        before = int(model.optimizer.iterations.numpy())
        model.train_on_batch(X[:BATCH], Y[:BATCH])
        assert int(model.optimizer.iterations.numpy()) == before + 1


def test_a_second_fit_counts_on(tmp_path):
    newest = distckpt.keras.CheckpointCallback(tmp_path / "newest")
    best = only_best(tmp_path / "best", max_to_keep=None)
    model, _ = train_with(newest, best, epochs=1)
    train_with(best, newest, model=model, scores=(3, 2), epochs=2)
    train_with(only_best(tmp_path / "best", max_to_keep=None), model=model, scores=(1,), epochs=1)
    assert [step for _, step, _ in kept(tmp_path / "best")] == [FEW, 2 * FEW, 3 * FEW, 4 * FEW]


def two_fits(first, second, stop=None):
    """Starts a program that calls `fit` twice; the second one may be interrupted."""
    model, watches = make_model(), (Watch(), Watch(stop))
    fit(model, arrays(), first, watches[0], epochs=1)
    try:
        fit(model, arrays(), second, watches[1], epochs=2)
    except Interrupted:
        assert stop is not None
    return model, [watch.epochs for watch in watches]


def test_each_fit_resumes_if_it_has_a_directory_of_its_own(tmp_path, caplog):
    def callbacks(name):
        folders = (tmp_path / name / "first", tmp_path / name / "second")
        return [distckpt.keras.CheckpointCallback(folder, save_freq=4) for folder in folders]

    expected, _ = two_fits(*callbacks("whole"))
    two_fits(*callbacks("interrupted"), stop=(1, 5))
    model, epochs = two_fits(*callbacks("interrupted"))
    assert epochs == [[], [1]]
    assert bits(model) == bits(expected)
    assert "of its own" not in caplog.text


def test_a_program_that_resumes_in_another_fit_is_warned(tmp_path, caplog):
    def callback():
        return distckpt.keras.CheckpointCallback(tmp_path, save_freq=4)

    whole = callback()
    two_fits(whole, whole, stop=(1, 5))
    assert "of its own" not in caplog.text
    again = callback()
    two_fits(again, again)
    assert f"restored from {tmp_path} was saved in fit number 2" in caplog.text
    assert caplog.text.count("of its own") == 1


def test_a_second_fit_numbers_on_and_remembers_the_best_value(tmp_path):
    newest = distckpt.keras.CheckpointCallback(tmp_path / "newest", max_to_keep=None)
    best = only_best(tmp_path / "best", max_to_keep=None)
    model, watch = train_with(best, newest, epochs=2, scores=(5, 3))
    train_with(best, newest, model=model, epochs=4, initial_epoch=2, scores=(0, 0, 4, 2))
    assert [name for name, _, _ in kept(tmp_path / "newest")] == [f"ckpt-{n}" for n in range(1, 5)]
    assert [score for _, _, score in kept(tmp_path / "best")] == [5, 3, 2]
    assert watch.epochs == [0, 1]
    _, watch = train_with(
        distckpt.keras.CheckpointCallback(tmp_path / "newest"), epochs=5, scores=[0] * 5
    )
    assert watch.epochs == [4]
