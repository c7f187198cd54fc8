"""A chief that is paused at any point of a save, replaced, and goes on."""

from __future__ import annotations

import sys
import threading
import traceback

import pytest

from distckpt.errors import DistckptError, SupersededError
from distckpt.testing.faulty_storage import AFTER, BEFORE, pauses

from . import lab
from .scenes import SCENES, Stage, operations, sample

# What the successor saves: what the paused one was saving (both have restored the same), what the
# paused one may be deleting, or something new.
NAMES = ("ckpt-2", "ckpt-1", "ckpt-7")


# After these there is a look at the term, or none: a pause after one differs from one before the
# next.
FENCED = ("make_directory", "create", "rename")


class Paused:
    """A chief in a thread of its own, stopped at an operation."""

    def __init__(self, scene, directory, k, moment):
        self.stage = Stage(scene, directory)
        self.reached, self._go_on = threading.Event(), threading.Event()
        self.stage.strike(k, moment, pauses(self.reached, self._go_on))
        self.end = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.reached.wait(120.0), self._explain()

    def _run(self):
        try:
            self.stage.save()
        except BaseException as error:
            self.end = error

    def _explain(self):
        """Says why the operation was not reached: an error, too few operations, or a hang."""
        frame = sys._current_frames().get(self._thread.ident)
        stack = "".join(traceback.format_stack(frame)) if frame else "its thread has ended"
        error = "".join(traceback.format_exception(self.end)) if self.end else "no error"
        return f"not reached; {error}\n{stack}\n{self.stage.storage.story()}"

    def finish(self):
        """Lets it go on to its end; returns what it raised."""
        self._go_on.set()
        self._thread.join(120.0)
        assert not self._thread.is_alive()
        return self.end


def public(directory):
    """Returns the content of what readers look at."""
    content = lab.content(directory)
    return {k: v for k, v in content.items() if not k.startswith(".distckpt/") and "/" not in k}


def play(scene, directory, k, moment, name, max_to_keep):
    """Lets a successor save while the first chief is paused, then lets that one go on.

    Returns:
      The names of the successor's files that are no longer as it left them.
    """
    paused = Paused(scene, directory, k, moment)
    first = paused.stage.chief
    seen = lab.restorable(directory)
    successor = lab.Chief(directory, max_to_keep=max_to_keep)
    successor.save(name, 5)
    before = public(directory)
    end = paused.finish()
    text = f"{moment} operation {paused.stage.done + k} of\n{paused.stage.storage.story()}"
    text = f"it ended with {end!r}; paused {text}".replace(directory, "")
    if end is None and first.ownership.term > successor.ownership.term:
        # It had not begun when the other came, so the other is the one that is replaced.
        assert lab.restorable(directory) == (scene.name, scene.number), text
        check_clean(directory, first)
        return set()
    changed = {f for f, data in before.items() if public(directory).get(f) != data}
    assert not changed, f"it damaged {sorted(changed)}; {text}"
    assert lab.restorable(directory) == (name, 5), text
    check_clean(directory, successor)
    if end is None:
        assert seen is not None, text
        assert seen[1] == scene.number, f"not committed when its successor came; {text}"
    else:
        assert isinstance(end, DistckptError), text
    with pytest.raises(SupersededError, match="taken over by"):
        first.save("ckpt-8", 8)
    assert {f: d for f, d in public(directory).items() if f not in changed} == {
        f: d for f, d in before.items() if f not in changed
    }
    successor.save("ckpt-9", 6)
    assert lab.restorable(directory) == ("ckpt-9", 6)
    names = [kept.name for kept in successor.managed.active]
    assert lab.leftovers(directory, names) == ([], [])
    return changed


def check_clean(directory, chief):
    extra, missing = lab.leftovers(directory, [kept.name for kept in chief.managed.active])
    # A replaced chief may leave an empty folder there, until its successor's next save.
    extra = [f for f in extra if not f.startswith(".distckpt/abandoned/")]
    if not chief.storage.has_folders:  # and a pending one, which has come back
        extra = [f for f in extra if ".pending-" not in f]
    assert (extra, missing) == ([], [])


def play_all(title, folder, *, every=1):
    """Plays a scene with a pause at every point; returns the files that were damaged.

    Args:
      title: Which scene.
      folder: Where; a path, or a URL as text.
      every: Of how many points one is played.
    """
    damaged = set()
    kinds = operations(title, folder if isinstance(folder, str) else None)
    for k, kind in sample(enumerate(kinds, 1), title, every):
        for moment in (BEFORE, AFTER) if kind in FENCED else (BEFORE,):
            name = NAMES[(k + (moment == AFTER)) % len(NAMES)]
            directory = f"{folder}/{k}-{moment}"
            damaged |= play(SCENES[title], directory, k, moment, name, 1 + k % 2)
    return damaged
