"""A chief that was only paused, at any point, and goes on after another has taken its place.

It must not commit over, delete, or damage anything of its successor's. That is what terms and
pending folders are for (see `distckpt.ownership.fencing`).
"""

from __future__ import annotations

import logging
import threading

import pytest

from distckpt.errors import SupersededError
from distckpt.testing.faulty_storage import BEFORE, Fault, FaultyStorage, Where, pauses

from ..kit import lab
from ..kit.paused import FENCED, NAMES, Paused, play, play_all
from ..kit.scenes import EVERY, SCENES, operations


@EVERY
@pytest.mark.parametrize("title", [t for t in SCENES if t != "first save"])
def test_a_paused_chief_does_no_harm(title, every, folder, caplog):
    caplog.set_level(logging.CRITICAL, "distckpt")
    assert play_all(title, folder, every=every) == set()


@pytest.mark.parametrize("name", ["ckpt-1", "ckpt-2"])
@pytest.mark.parametrize("title", ["second save with prune", "same number", "over plain"])
def test_what_plain_tensorflow_saves_before_a_paused_chief_is_replaced_stays(
    title, name, folder, caplog
):
    caplog.set_level(logging.CRITICAL, "distckpt")
    for k, kind in enumerate(operations(title), 1):
        if kind not in FENCED:
            continue
        directory = str(folder / str(k))
        paused = Paused(SCENES[title], directory, k, BEFORE)
        lab.plain_save(directory, name, 5)
        successor = lab.Chief(directory, max_to_keep=9)
        successor.save("ckpt-7", 6)
        paused.finish()
        first = paused.stage.chief.ownership.term
        if first is None or first < successor.ownership.term:
            assert lab.number_of(directory, name) == 5, paused.stage.storage.story()
            assert lab.restorable(directory) == ("ckpt-7", 6)


@pytest.mark.parametrize("name", NAMES)
def test_a_paused_chief_leaves_tensorflows_file_alone(name, folder, caplog):
    caplog.set_level(logging.CRITICAL, "distckpt")
    title = "second save with prune"
    for k, kind in enumerate(operations(title), 1):
        if kind in ("write", "rename"):
            directory = str(folder / str(k))
            assert play(SCENES[title], directory, k, BEFORE, name, 1) == set()


def test_a_replaced_chief_leaves_the_save_in_progress_of_its_successor_alone(folder):
    """It comes back to life between two saves, and begins the next one."""
    directory = str(folder / "run")
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
