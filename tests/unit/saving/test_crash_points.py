"""Every operation of the chief that changes the directory, each a place to die or to fail.

After each, whatever happened, a fresh process must find the last acknowledged checkpoint, bit for
bit, or the one that was being saved; so must plain TensorFlow; and the next save must leave nothing
behind.
"""

from __future__ import annotations

import contextlib
import errno

import pytest

from distckpt.errors import CommitUnknownError, DistckptError
from distckpt.testing.faulty_storage import (
    AFTER,
    BEFORE,
    ProcessDied,
    dies,
    fails,
)

from ..kit import lab
from ..kit.scenes import (
    EVERY,
    SCENES,
    Stage,
    check_death,
    check_next_save,
    check_readers,
    deaths,
    explained,
    managed,
    operations,
    sample,
)


@EVERY
@pytest.mark.parametrize("title", SCENES)
def test_a_death_anywhere_loses_nothing(title, every, folder):
    scene = SCENES[title]
    for k, moment in sample(deaths(title), title, every):
        check_death(scene, str(folder / f"{k}-{moment}"), k, moment)


@EVERY
@pytest.mark.parametrize("title", SCENES)
def test_what_plain_tensorflow_saves_after_a_death_stays(title, every, folder):
    """Be it the name that was being saved, deleted, or replaced: recovery keeps its hands off."""
    scene = SCENES[title]
    for k, moment in sample(deaths(title), title, every):
        directory, name = str(folder / f"{k}-{moment}"), f"ckpt-{1 + k % 2}"
        stage = Stage(scene, directory)
        stage.strike(k, moment, dies())
        with contextlib.suppress(ProcessDied):
            stage.save()
        lab.plain_save(directory, name, 5)
        with explained(stage, k, moment):
            check_readers(directory, {5}, pointed=True)
            successor = lab.Chief(directory, max_to_keep=9)
            successor.save("ckpt-10", 7)
            assert lab.number_of(directory, name) == 5
            assert lab.restorable(directory) == ("ckpt-10", 7)
            assert [f for f in lab.files_in(directory) if "pending" in f] == []


ERRORS = {"ENOSPC before": (errno.ENOSPC, BEFORE), "EIO after": (errno.EIO, AFTER)}


@pytest.mark.parametrize(("code", "moment"), ERRORS.values(), ids=ERRORS)
@EVERY
@pytest.mark.parametrize("title", SCENES)
def test_an_error_anywhere_loses_nothing(title, every, code, moment, folder):
    scene = SCENES[title]
    for k in sample(range(1, len(operations(title)) + 1), title, every):
        directory = str(folder / f"{k}-{moment}")
        stage = Stage(scene, directory)
        was = managed(directory)
        stage.strike(k, moment, fails(code))
        with explained(stage, k, moment):
            try:
                stage.save()
                allowed = {scene.number}
            except CommitUnknownError:
                allowed = {scene.acknowledged, scene.number}
            except DistckptError:
                allowed = {scene.acknowledged}
                assert managed(directory) == was
            check_readers(directory, allowed, pointed=scene.acknowledged is not None)
            name = scene.name if k % 2 else "ckpt-10"
            check_next_save(stage.chief, name, 7)
