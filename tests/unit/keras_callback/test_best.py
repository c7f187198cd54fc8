"""``save_best_only``: which value is the best, and other callbacks that save, too."""

from __future__ import annotations

import pytest
import tensorflow as tf

import distckpt

from .training import (
    EPOCHS,
    FEW,
    LEGACY,
    STEPS,
    Scores,
    X,
    Y,
    arrays,
    few,
    few_of_endless,
    fit,
    kept,
    keras,
    make_model,
    one_batch,
    only_best,
    strategy,
    train_with,
)


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


def best_of(directory, scores, **arguments):
    """Trains once; returns the epochs that were saved."""
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
    fit(make_model(), one_batch(), Scores(*scores), callback, Look(), epochs=len(scores))
    return saved


def test_only_the_best(tmp_path):
    nan = float("nan")
    scores = [nan, 2.0, 2.0, None, 3.0, 1.5, nan]
    assert best_of(tmp_path / "min", scores, mode="min") == [1, 5]
    assert best_of(tmp_path / "max", scores, mode="max") == [1, 4]
    # After a restart the best value is that of the newest checkpoint, ...
    assert best_of(tmp_path / "min", [1.6, 1.4], mode="min") == [1]
    assert best_of(tmp_path / "max", [2.9, 3.0, 3.1], mode="max") == [2]
    # ... without a checkpoint it is the value that was given.
    assert best_of(tmp_path / "start", [5.0, 4.0], mode="min", initial_value_threshold=4.5) == [1]


@pytest.mark.parametrize(("given", "newest_first"), [(few, True), (few_of_endless, False)])
def test_the_best_beside_the_newest_after_a_restart(tmp_path, given, newest_first):
    """Numbers continue, and steps are those of the training, whichever callback comes first."""
    for stop in [(2, 2), (3, 3), None]:
        newest = distckpt.keras.CheckpointCallback(
            tmp_path / "newest", save_freq=3, input_continues=given is few_of_endless
        )
        best = only_best(tmp_path / "best", max_to_keep=None)
        callbacks = (newest, best) if newest_first else (best, newest)
        train_with(*callbacks, stop=stop, given=given())
    assert kept(tmp_path / "best") == [(f"ckpt-{n}", n * FEW, 5.0 - n) for n in (1, 2, 3, 4)]
    assert kept(tmp_path / "newest")[-1][1] == 4 * FEW


def test_the_best_that_were_there_before_are_compared(tmp_path):
    options = distckpt.ManagerOptions(keep=distckpt.keep.Best(2, "score"))
    given = {"max_to_keep": 1, "options": options, "save_best_only": False}
    train_with(only_best(tmp_path, **given), scores=(2, 1, 3), epochs=3)
    assert [score for _, _, score in kept(tmp_path)] == [2, 1, 3]
    train_with(only_best(tmp_path, **given), scores=(1.5, 4), epochs=2)
    assert kept(tmp_path) == [("ckpt-2", 2 * FEW, 1), ("ckpt-4", FEW, 1.5), ("ckpt-5", 2 * FEW, 4)]


def test_the_best_beside_the_backup_of_keras(tmp_path):
    for stop in [(2, 2), None]:
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=3)
        train_with(backup, only_best(tmp_path / "best", max_to_keep=None), stop=stop)
    again = 0 if LEGACY else 1  # Keras 3 continues at the first batch of the epoch
    after = 4 * FEW + again
    found = kept(tmp_path / "best")
    assert [name for name, _, _ in found] == ["ckpt-1", "ckpt-2", "ckpt-3", "ckpt-4"]
    assert [step for _, step, _ in found] == [FEW, 2 * FEW, after - FEW, after]


def test_the_best_beside_a_program_that_restores_by_itself(tmp_path):
    def start(epochs):
        model = make_model()
        with strategy().scope():
            model.optimizer.build(model.trainable_variables)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        manager = distckpt.CheckpointManager(checkpoint, tmp_path / "own", 3)
        path = manager.restore_or_initialize()
        best = only_best(tmp_path / "best", max_to_keep=None)
        begin = int(path.rpartition("-")[2]) if path else 0
        train_with(best, model=model, epochs=epochs, initial_epoch=begin)
        manager.save(checkpoint_number=epochs)

    start(2)
    start(4)
    assert kept(tmp_path / "best") == [(f"ckpt-{n}", n * FEW, 5.0 - n) for n in (1, 2, 3, 4)]


def test_a_damaged_best_is_passed_over(tmp_path, caplog):
    train_with(only_best(tmp_path), epochs=2)
    (tmp_path / "ckpt-2.index").write_bytes(b"nonsense")
    train_with(only_best(tmp_path), scores=(3.5, 4.5, 5.0), epochs=3)
    assert "ckpt-2" in caplog.text
    assert sorted(p.name for p in tmp_path.glob("*.manifest.json"))[-1] == "ckpt-3.manifest.json"


def test_another_metric_has_a_best_value_of_its_own(tmp_path):
    """Otherwise a loss would be compared with an accuracy."""
    for restore in (False, True):
        directory = tmp_path / str(restore)
        train_with(only_best(directory, restore=restore), scores=(0.25,), epochs=1)
        train_with(
            only_best(directory, restore=restore, monitor="mae", mode="max"),
            scores=(3, 3),
            epochs=2,
        )
        assert len(kept(directory)) == 2
        train_with(only_best(directory, restore=restore, mode="max"), scores=(0, 0, 0), epochs=3)
        assert kept(directory)[-1][2] == 0
