"""A chief that was only paused, at any point, and goes on after another has taken its place.

It must not commit over, delete, or damage anything of its successor's. That is what epochs and
pending folders are for (see `distckpt.roles.ownership`).
"""

from __future__ import annotations

import logging
import os
import threading

import pytest
import tensorflow as tf

from distckpt.errors import DistckptError, SupersededError
from distckpt.testing.faulty_storage import AFTER, BEFORE, Fault, FaultyStorage, Where, pauses

from . import lab
from .test_crash_points import SCENES, Stage, operations

# What the successor saves: what the paused one was saving (both have restored the same), what the
# paused one may be deleting, or something new.
NAMES = ("ckpt-2", "ckpt-1", "ckpt-7")


class Paused:
    """A chief in a thread of its own, stopped at an operation."""

    def __init__(self, scene, directory, k, moment):
        self.stage = Stage(scene, directory)
        self.reached, self._go_on = threading.Event(), threading.Event()
        self.stage.strike(k, moment, pauses(self.reached, self._go_on))
        self.end = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.reached.wait(30.0)

    def _run(self):
        try:
            self.stage.save()
        except BaseException as error:
            self.end = error

    def finish(self):
        """Lets it go on to its end; returns what it raised."""
        self._go_on.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()
        return self.end


def public(directory):
    """Returns the content of what readers look at."""
    return {k: v for k, v in lab.content(directory).items() if not k.startswith(".distckpt/")}


def play(scene, directory, k, moment, name, max_to_keep):
    paused = Paused(scene, directory, k, moment)
    story = paused.stage.storage.story
    seen = lab.restorable(directory)
    successor = lab.Chief(directory, max_to_keep=max_to_keep)
    successor.save(name, 5)
    active = [kept.name for kept in successor.books.active]
    before = public(directory)
    end = paused.finish()
    text = f"{moment} operation {paused.stage.done + k} of\n{story()}\nit ended with {end!r}"
    changed = {f for f, data in before.items() if public(directory).get(f) != data}
    assert not changed, f"it damaged {sorted(changed)}; paused {text}"
    assert lab.restorable(directory) == (name, 5), text
    assert tf.train.latest_checkpoint(directory) == os.path.join(directory, name), text
    extra, missing = lab.leftovers(directory, active)
    assert (extra, missing) == ([], []), text
    if end is None:
        assert seen is not None, text
        assert seen[1] == scene.number, f"not committed when its successor came; paused {text}"
    else:
        assert isinstance(end, DistckptError), text
    with pytest.raises(SupersededError, match="taken over by"):
        paused.stage.chief.save("ckpt-8", 8)
    assert public(directory) == before
    successor.save("ckpt-9", 6)
    assert lab.restorable(directory) == ("ckpt-9", 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("title", [t for t in SCENES if t != "first save"])
def test_a_paused_chief_does_no_harm(title, name, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL, "distckpt")
    for k in range(1, len(operations(title)) + 1):
        for moment in (BEFORE, AFTER):
            directory = str(tmp_path / f"{k}-{moment}")
            play(SCENES[title], directory, k, moment, name, max_to_keep=1 + k % 2)


def test_a_replaced_chief_leaves_the_save_in_progress_of_its_successor_alone(tmp_path):
    """It comes back to life between two saves, and begins the next one."""
    directory = str(tmp_path / "run")
    old = lab.Chief(directory)
    old.save("ckpt-1", 1)
    reached, go_on = threading.Event(), threading.Event()
    where = Where("rename", "*/ckpt-2.index")
    storage = FaultyStorage(lab.FastStorage(), [Fault(pauses(reached, go_on), where)])
    successor = lab.Chief(directory, storage)
    thread = threading.Thread(target=successor.save, args=("ckpt-2", 2), daemon=True)
    thread.start()
    assert reached.wait(30.0)
    with pytest.raises(SupersededError):
        old.save("ckpt-2", 3)
    go_on.set()
    thread.join(30.0)
    assert lab.restorable(directory) == ("ckpt-2", 2)
    assert lab.leftovers(directory, ["ckpt-1", "ckpt-2"]) == ([], [])
