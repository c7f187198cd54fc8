"""At every instant plain TensorFlow finds a whole, committed checkpoint, no older than promised."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf

from distckpt.storage.local import LocalStorage

CHANGES = ("make_directory", "write", "create", "rename", "remove", "remove_tree")


class WatchedStorage(LocalStorage):
    """Calls `watch` after every operation that changes the directory."""

    def __init__(self):
        self.watch = lambda: None
        self.operations = []


def _watched(operation):
    def method(self, *args, **kwargs):
        getattr(LocalStorage, operation)(self, *args, **kwargs)
        self.operations.append((operation, *map(os.path.basename, map(str, args[:2]))))
        self.watch()

    return method


for operation in CHANGES:
    setattr(WatchedStorage, operation, _watched(operation))


class Trainer:
    """Saves values, and compares at every instant what plain TensorFlow finds with them.

    `states` are all states that a save was called with, oldest first; `acknowledged` is how many of
    these saves have returned.
    """

    def __init__(self, directory, make, observer, **options):
        self.directory, self.observer = str(directory), observer
        self.value = tf.Variable([0.0, 0.0])
        self.word = tf.Variable("")
        self.checkpoint = tf.train.Checkpoint(value=self.value, word=self.word)
        self.manager = make(self.checkpoint, self.directory, **options)
        self.states, self.acknowledged, self.looks = [], 0, 0
        self.manager._common.storage.watch = self.look

    def save(self, number=None):
        step = len(self.states) + 1.0
        self.value.assign([step, -step])
        self.word.assign(f"state {step}")
        self.states.append((f"state {step}".encode(), [step, -step], int(self.counter()) + 1))
        path = self.manager.save(number)
        self.acknowledged = len(self.states)
        self.look()
        return path

    def counter(self):
        return self.checkpoint.save_counter

    def look(self):
        self.looks += 1
        path = tf.train.latest_checkpoint(self.directory)
        if path is None:
            assert self.acknowledged == 0
            return
        found = self.observer.contents(path)  # every tensor can be read
        assert len(found) == 4
        reader = tf.train.load_checkpoint(path)
        state = (
            reader.get_tensor("word/.ATTRIBUTES/VARIABLE_VALUE"),
            reader.get_tensor("value/.ATTRIBUTES/VARIABLE_VALUE").tolist(),
            reader.get_tensor("save_counter/.ATTRIBUTES/VARIABLE_VALUE"),
        )
        assert state in self.states[max(self.acknowledged - 1, 0) :]
        assert self.observer.verify(self.directory, os.path.basename(path)) is not None


@pytest.fixture
def trainer(tmp_path, make, observer, monkeypatch):
    monkeypatch.setattr(
        "distckpt.manager.checkpoint_manager.storage_for", lambda directory: WatchedStorage()
    )
    return lambda **options: Trainer(tmp_path / "run", make, observer, **options)


def test_the_watch_sees_every_step(trainer):
    t = trainer(max_to_keep=1)
    t.save()
    t.save()
    renamed = [
        names[-1] for kind, *names in t.manager._common.storage.operations if kind == "rename"
    ]
    assert "ckpt-2.index" in renamed
    assert "ckpt-2.manifest.json" in renamed
    assert "ckpt-1.index" in renamed  # into the folder of its deletion
    assert t.looks > 20


@pytest.mark.parametrize("max_to_keep", [None, 1, 2])
def test_fresh_saves_and_prunes(trainer, max_to_keep):
    t = trainer(max_to_keep=max_to_keep)
    for _ in range(4):
        t.save()
    assert len(t.manager.checkpoints) == (max_to_keep or 4)


@pytest.mark.parametrize("max_to_keep", [None, 1, 2])
def test_the_same_number_again_and_again(trainer, max_to_keep):
    t = trainer(max_to_keep=max_to_keep)
    for number in (7, 7, 7, 8, 7, 8, 8):
        t.save(number)


def test_a_fresh_save_is_never_visible_before_it_is_whole(trainer):
    t = trainer(max_to_keep=1)
    t.save()
    seen = set()
    t.manager._common.storage.watch = lambda: seen.add(tf.train.latest_checkpoint(t.directory))
    assert seen <= {t.manager.latest_checkpoint, t.save()}


def test_a_switch_from_a_plain_checkpoint(trainer, tmp_path):
    t = trainer(max_to_keep=1)
    plain = tf.train.CheckpointManager(t.checkpoint, t.directory, max_to_keep=1)
    for _ in range(2):
        plain.save(5)
    before = t.observer.contents(plain.latest_checkpoint)
    found = []
    t.manager._common.storage.watch = lambda: found.append(
        t.observer.contents(tf.train.latest_checkpoint(t.directory))
    )
    t.value.assign([9.0, 9.0])
    after = t.observer.contents(t.manager.save(5))
    assert after != before
    assert [before, after] == [f for i, f in enumerate(found) if i == 0 or f != found[i - 1]]
