"""Directories in every state that a save may find, and saves that are disturbed at any point."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import tempfile
from collections.abc import Callable

import pytest
import tensorflow as tf

from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.restoring.verifier import Verifier
from distckpt.testing.faulty_storage import (
    AFTER,
    BEFORE,
    DURING,
    Fault,
    FaultyStorage,
    ProcessDied,
    Where,
    dies,
)

from . import lab


@dataclasses.dataclass(frozen=True)
class Scene:
    """What was there before, and which save is disturbed.

    Attributes:
      before: Makes the directory; other processes do.
      same_process: Saves of the process to be disturbed, before that: (name, number).
      name: What it saves then,
      number: of these values,
      acknowledged: and which values were acknowledged last before.
      max_to_keep: As in a manager.
      workers: How many.
    """

    before: Callable[[str], None] = lambda directory: None
    same_process: tuple[tuple[str, int], ...] = ()
    name: str = "ckpt-2"
    number: int = 9
    acknowledged: int | None = 1
    max_to_keep: int = 2
    workers: int = 1


def saved(*names, max_to_keep=5, workers=1):
    def before(directory):
        chief = lab.Chief(directory, max_to_keep=max_to_keep)
        for name, number in names:
            chief.save(name, number, workers)

    return before


def plain(*names):
    def before(directory):
        for name, number in names:
            lab.plain_save(directory, name, number)
        lab.point_to(directory, [name for name, _ in names])

    return before


def plain_over(name, number, older):
    """Plain TensorFlow has saved over a checkpoint of ours: its manifest is outdated."""

    def before(directory):
        lab.Chief(directory).save(name, older)
        lab.plain_save(directory, name, number)

    return before


def cut_off(name, number, where, *names):
    """What a process leaves that died in the middle of a save."""

    def before(directory):
        storage = FaultyStorage(lab.storage_of(directory))
        chief = lab.Chief(directory, storage, max_to_keep=1)
        for done in names:
            chief.save(*done)
        storage.add(Fault(dies(), where))
        with contextlib.suppress(ProcessDied):
            chief.save(name, number)
        assert storage.dead

    return before


SCENES = {
    "first save": Scene(name="ckpt-1", acknowledged=None, workers=3),
    "second save": Scene(same_process=(("ckpt-1", 1),), workers=2),
    "second save with prune": Scene(same_process=(("ckpt-1", 1),), max_to_keep=1),
    "second save with prune of two shards": Scene(
        saved(("ckpt-1", 1), workers=2), max_to_keep=1, workers=2
    ),
    "prune of plain": Scene(plain(("ckpt-1", 1)), max_to_keep=1),
    "prune of plain over ours": Scene(plain_over("ckpt-1", 1, 0), max_to_keep=1),
    "same number": Scene(same_process=(("ckpt-1", 0), ("ckpt-2", 1)), workers=2),
    "same number by another process": Scene(saved(("ckpt-2", 1))),
    "older number": Scene(same_process=(("ckpt-2", 0), ("ckpt-3", 1))),
    "only number": Scene(same_process=(("ckpt-2", 1),), max_to_keep=1),
    "over plain": Scene(plain(("ckpt-2", 1)), workers=2),
    "over older plain": Scene(plain(("ckpt-2", 0), ("ckpt-3", 1))),
    "takeover of a save before its commit": Scene(
        cut_off("ckpt-2", 2, Where("rename", "*/ckpt-2.manifest.json"), ("ckpt-1", 1)),
    ),
    "takeover of a save with moved data": Scene(
        cut_off("ckpt-2", 2, Where("rename", "*/ckpt-2.index"), ("ckpt-1", 1)), name="ckpt-3"
    ),
    "takeover of a switch of versions": Scene(
        cut_off("ckpt-1", 2, Where("rename", "*/ckpt-1.index"), ("ckpt-1", 1)), name="ckpt-1"
    ),
    "takeover of a switch of versions that is done": Scene(
        cut_off("ckpt-1", 1, Where("write", "*/checkpoint"), ("ckpt-1", 0)),
    ),
    "takeover of a prune": Scene(
        cut_off("ckpt-2", 1, Where("rename", "*/ckpt-1.data*"), ("ckpt-1", 0)), name="ckpt-3"
    ),
}


class Stage:
    """A scene on a directory of its own, at the moment before the disturbed save."""

    def __init__(self, scene, directory):
        self.scene = scene
        self.directory = str(directory)
        scene.before(self.directory)
        self.storage = FaultyStorage(lab.storage_of(directory))
        self.chief = lab.Chief(self.directory, self.storage, max_to_keep=scene.max_to_keep)
        self.storage.on_death = self.chief.die
        for name, number in scene.same_process:
            self.chief.save(name, number, scene.workers)
        self.done = self.storage.writes

    def strike(self, k, moment, effect):
        """Plans a fault at the k-th operation, from 1, of the save that follows."""
        self.storage.add(Fault(effect, Where(writing=self.done + k), moment))

    def save(self):
        return self.chief.save(self.scene.name, self.scene.number, self.scene.workers)


@functools.cache
def operations(title, url=None):
    """Returns the kinds of operations of an undisturbed save; in a folder of `url`, if given."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(SCENES[title], os.path.join(url or folder, "run"))
        stage.save()
        return tuple(o.kind for o in stage.storage.operations if o.writing > stage.done)


# For tests that play a scene at one of so many points: daily some, in the long run all.
EVERY = pytest.mark.parametrize(
    "every", [pytest.param(5, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)]
)


def sample(points, title, every):
    """Yields one of `every` points; those of one scene lie between those of another."""
    return itertools.islice(points, [*SCENES].index(title) % every, None, every)


def deaths(title, url=None):
    """Yields every state that a death can leave. After one operation is before the next."""
    for k, kind in enumerate(operations(title, url), 1):
        yield k, BEFORE
        if kind in ("write", "create", "remove_tree"):
            yield k, DURING
    yield len(operations(title, url)), AFTER


def check_readers(directory, allowed, *, pointed):
    """What any process must find, without writing.

    Args:
      directory: The directory.
      allowed: The values that may be the newest; None for no checkpoint.
      pointed: Whether plain TensorFlow must find one.
    """
    before = lab.content(directory)
    found = lab.restorable(directory)
    assert (found[1] if found else None) in allowed
    storage = lab.storage_of(directory)
    managed = ManagedCheckpoints(storage, directory, None, None, durable=True)
    for kept in managed.active:
        Verifier(storage, directory).verify(kept.name)
        lab.number_of(directory, kept.name)
    path = tf.train.latest_checkpoint(directory)
    if path is not None:
        lab.number_of(directory, os.path.basename(path))
    assert path is not None or not pointed
    assert lab.content(directory) == before, "a reader wrote"


def check_next_save(chief, name, number, workers=1):
    """The next save must work, be found, and leave nothing else behind."""
    chief.save(name, number, workers)
    assert lab.restorable(chief.directory) == (name, number)
    assert tf.train.latest_checkpoint(chief.directory) == os.path.join(chief.directory, name)
    names = [kept.name for kept in chief.managed.active]
    assert name in names
    assert len(names) <= chief.max_to_keep
    extra, missing = lab.leftovers(chief.directory, names)
    assert not extra, f"left over: {extra}"
    assert not missing, f"missing: {missing}"


def managed(directory):
    """Returns what readers see of a directory: the newest, the list, and their values."""
    managed = ManagedCheckpoints(lab.storage_of(directory), directory, None, None, durable=True)
    return managed.latest, [(k.name, lab.number_of(directory, k.name)) for k in managed.active]


@contextlib.contextmanager
def explained(stage, k, moment):
    """Adds to a failure what the disturbed process did."""
    try:
        yield
    except BaseException as error:
        story = stage.storage.story().replace(stage.directory, "")
        files = "\n".join(sorted(lab.files_in(stage.directory)))
        text = f"{moment} operation {stage.done + k} of\n{story}\nthere is\n{files}\n{error}"
        raise AssertionError(text) from error


def check_death(scene, directory, k, moment):
    """Lets the chief die at an operation: no checkpoint is lost, and its successor can save."""
    stage = Stage(scene, directory)
    stage.strike(k, moment, dies())
    with contextlib.suppress(ProcessDied):
        stage.save()
    with explained(stage, k, moment):
        assert stage.storage.dead
        pointed = scene.acknowledged is not None
        check_readers(directory, {scene.acknowledged, scene.number}, pointed=pointed)
        successor = lab.Chief(directory, max_to_keep=scene.max_to_keep)
        check_next_save(successor, scene.name if k % 2 else "ckpt-10", 7, 1 + k % 3)
