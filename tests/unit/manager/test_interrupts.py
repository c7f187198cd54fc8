"""Ctrl-C at any point of a save: the process lives on, and so do its checkpoints."""

from __future__ import annotations

import itertools

import pytest
import tensorflow as tf

from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.saving.committer import Committer
from distckpt.storage.local import LocalStorage

CHANGES = ("make_directory", "write", "create", "rename", "remove", "remove_tree")


class InterruptedStorage(LocalStorage):
    """Interrupts before or after the operation that `countdown` comes to."""

    countdown = None
    after = False


def _interrupted(operation):
    def method(self, *args, **kwargs):
        now = False
        if self.countdown is not None:
            self.countdown -= 1
            now = self.countdown == 0
        if now and not self.after:
            raise KeyboardInterrupt
        getattr(LocalStorage, operation)(self, *args, **kwargs)
        if now:
            raise KeyboardInterrupt

    return method


for name in CHANGES:
    setattr(InterruptedStorage, name, _interrupted(name))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [None, 1], ids=["fresh", "same number"])
def test_after_an_interruption_the_last_stands_and_the_next_save_works(
    make, observer, tmp_path, monkeypatch, after, number
):
    storage = InterruptedStorage()
    monkeypatch.setattr(
        "distckpt.manager.checkpoint_manager.storage_for", lambda directory: storage
    )
    for point in itertools.count(1):
        directory = tmp_path / str(point)
        checkpoint = tf.train.Checkpoint(value=tf.Variable(1))
        manager = make(checkpoint, directory, 1)
        manager.save(number)
        checkpoint.value.assign(2)
        storage.after, storage.countdown = after, point
        try:
            manager.save(number)
            break
        except KeyboardInterrupt:
            storage.countdown = None
        found = []
        for factory in (make, tf.train.CheckpointManager):
            checkpoint.value.assign(0)
            assert factory(checkpoint, directory, 1).restore_or_initialize()
            found.append(int(checkpoint.value))
        assert found[0] in (1, 2)
        assert found[1] in (1, 2)
        checkpoint.value.assign(3)
        path = manager.save(number)
        assert path == manager.latest_checkpoint == tf.train.latest_checkpoint(directory)
        checkpoint.value.assign(0)
        assert make(checkpoint, directory, 1).restore_or_initialize() == path
        assert int(checkpoint.value) == 3
        assert observer.leftovers(directory) == []
        assert list(observer.on_disk(directory)) == [path.rpartition("/")[2]]
    assert point > 10


def interrupted(*unused):
    raise KeyboardInterrupt


def just_opened(patch):
    opening = Committer.open
    patch.setattr(Committer, "open", lambda *arguments: interrupted(opening(*arguments)))


def cleaning_up(patch):
    """A second Ctrl-C, after one in the merge."""
    patch.setattr(Committer, "merge", interrupted)
    patch.setattr(AttemptCleanup, "roll_back", interrupted)


@pytest.mark.parametrize("where", [just_opened, cleaning_up])
def test_the_next_save_removes_what_an_interruption_has_left(
    make, observer, tmp_path, monkeypatch, where
):
    manager = make(tf.train.Checkpoint(value=tf.Variable(1)), tmp_path, 2)
    manager.save()
    with monkeypatch.context() as patch:
        where(patch)
        with pytest.raises(KeyboardInterrupt):
            manager.save()
    assert observer.leftovers(tmp_path) != []
    assert manager.save() == manager.latest_checkpoint
    assert observer.leftovers(tmp_path) == []
