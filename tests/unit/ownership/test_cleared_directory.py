"""A directory is cleared, or moved away, while a chief works in it, at any point of that.

What comes into its place belongs to who makes it: the first chief must neither save into it nor
take anything out of it, whether it goes on at once or an hour later. And where nobody has come, it
takes the directory anew, after one word of warning.
"""

from __future__ import annotations

import logging
import pathlib
import shutil
import threading

import pytest

from distckpt.errors import DirectoryClearedError, DistckptError, SupersededError
from distckpt.testing.faulty_storage import AFTER, BEFORE, Fault, FaultyStorage, Where, pauses

from ..kit import lab
from ..kit.paused import FENCED, Paused, public
from ..kit.scenes import SCENES, operations

TITLES = (
    "second save with prune of two shards",
    "same number",
    "takeover of a prune",
)


def clear(directory):
    while pathlib.Path(directory).exists():  # a worker may be adding files
        shutil.rmtree(directory, ignore_errors=True)


def move_away(directory):
    pathlib.Path(directory).rename(f"{directory}.old")


def remove_private_folder(directory):
    shutil.rmtree(pathlib.Path(directory, ".distckpt"), ignore_errors=True)


class Halfway:
    """A chief that is stopped in the middle of a save."""

    def __init__(self, directory, name, number):
        self.reached, self._go_on = threading.Event(), threading.Event()
        where = Where("rename", f"*/{name}.index")
        effect = pauses(self.reached, self._go_on)
        self.chief = lab.Chief(directory, FaultyStorage(lab.FastStorage(), [Fault(effect, where)]))
        self.end = None
        self._thread = threading.Thread(target=self._run, args=(name, number), daemon=True)
        self._thread.start()
        assert self.reached.wait(30.0)

    def _run(self, name, number):
        try:
            self.chief.save(name, number)
        except BaseException as error:
            self.end = error

    def finish(self):
        self._go_on.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()


def points(title):
    """Yields every other moment of a save, for each takes a while."""
    for k, kind in enumerate(operations(title), 1):
        for moment in (BEFORE, AFTER) if kind in FENCED else (BEFORE,):
            if (k + (moment == AFTER)) % 2 == len(title) % 2:
                yield k, moment


def befallen(title, befall, folder):
    """Yields chiefs that pause in a save of a directory, each after that was cleared."""
    for k, moment in points(title):
        paused = Paused(SCENES[title], f"{folder}/{k}-{moment}", k, moment)
        if pathlib.Path(paused.stage.directory).exists():
            befall(paused.stage.directory)
            yield paused, f"{moment} operation {paused.stage.done + k} of\n"


def finished(paused, point):
    """Lets the chief go on; returns its error or None, and what it did, for messages."""
    end = paused.finish()
    text = f"it ended with {end!r}; {point}{paused.stage.storage.story()}"
    assert end is None or isinstance(end, DistckptError), text
    return end, text


@pytest.mark.parametrize("befall", [clear, move_away])
@pytest.mark.parametrize("title", TITLES)
def test_a_chief_leaves_what_came_into_its_directorys_place_alone(title, befall, folder, caplog):
    caplog.set_level(logging.CRITICAL, "distckpt")
    for paused, point in befallen(title, befall, folder):
        directory, first = paused.stage.directory, paused.stage.chief
        new = Halfway(directory, SCENES[title].name, 5)
        end, text = finished(paused, point)
        if end is None and first.ownership.term and not befall_was_seen(first):
            continue  # it had not begun when the other came, and has taken over from it
        new.finish()
        assert new.end is None, f"the other's save: {new.end!r}; {text}"
        assert lab.restorable(directory) == (SCENES[title].name, 5), text
        before = public(directory)
        with pytest.raises(SupersededError):
            first.save("ckpt-8", 8)
        assert public(directory) == before, text
        new.chief.save("ckpt-9", 6)
        assert lab.leftovers(directory, [k.name for k in new.chief.managed.active]) == ([], []), (
            text
        )


def befall_was_seen(chief):
    """Returns whether the directory was another one's when this chief looked last."""
    try:
        chief.ownership.check()
    except DistckptError:
        return True
    return False


@pytest.mark.parametrize("befall", [clear, move_away, remove_private_folder])
@pytest.mark.parametrize("title", TITLES)
def test_one_save_fails_at_the_most_when_nobody_else_comes(title, befall, folder, caplog):
    caplog.set_level(logging.CRITICAL, "distckpt")
    for paused, point in befallen(title, befall, folder):
        directory, chief = paused.stage.directory, paused.stage.chief
        end, text = finished(paused, point)
        failed = 0
        for number in (6, 7):
            try:
                chief.save(f"ckpt-{number}", number)
            except DirectoryClearedError:
                failed += 1
        assert failed <= (not isinstance(end, DirectoryClearedError)), text
        assert lab.restorable(directory) == ("ckpt-7", 7), text
        names = [kept.name for kept in chief.managed.active]
        there = {p.stem for p in pathlib.Path(directory).glob("*.index")}
        assert set(names) <= there, text
        if befall is not remove_private_folder:  # which has the marks of what was being deleted
            assert lab.leftovers(directory, names) == ([], []), text
