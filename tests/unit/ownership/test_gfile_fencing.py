"""The roles on TensorFlow's file systems: a URL for a directory, and two chiefs that want it.

``ram://`` is like an object store: a folder is but a part of names, and comes back with the next
file that is written there. ``file://`` is a disk, by way of TensorFlow.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import socket
import threading

import pytest

from distckpt.core import layout
from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError, SupersededError
from distckpt.ownership.fencing import Ownership
from distckpt.restoring.verifier import Verifier
from distckpt.storage.gfile import GFileStorage
from distckpt.testing.faulty_storage import (
    BEFORE,
    WRITING,
    Fault,
    FaultyStorage,
    Where,
    pauses,
)
from distckpt.testing.threads import run_in_threads

from ..kit import lab
from ..kit.paused import play_all
from ..kit.scenes import (
    EVERY,
    SCENES,
    check_death,
    deaths,
    sample,
)

_numbers = itertools.count()
# Scenes that are played at more points of ram://: here a folder that comes back would do harm.
HARMFUL = (
    "second save with prune",
    "same number",
    "prune of plain",
    "takeover of a switch of versions",
)


def rarely(every, title, scheme):
    """Returns of how many points of a scene one is played; file:// differs but in the adapter."""
    if scheme == "file":
        return 9 * every
    return every if title in HARMFUL else 5 * every


@pytest.fixture(params=["ram", "file"])
def scheme(request):
    return request.param


@pytest.fixture
def root(scheme, folder):
    """The URL of a new folder."""
    return f"file://{folder}" if scheme == "file" else f"ram://fencing-{next(_numbers)}"


@pytest.fixture
def memory():
    """The URL of a new folder where folders are but parts of names."""
    return f"ram://fencing-{next(_numbers)}"


@pytest.fixture(autouse=True)
def silent(caplog):
    caplog.set_level(logging.CRITICAL, "distckpt")


class Going:
    """A chief that saves in a thread, until it is paused at an operation; a context manager.

    Args:
      chief: The chief, on a FaultyStorage.
      where: At which operation.
      save: What it saves: name and number.
    """

    def __init__(self, chief, where, *save):
        self.end = None
        self._go_on, reached = threading.Event(), threading.Event()
        chief.storage.add(Fault(pauses(reached, self._go_on), where, BEFORE))
        self._thread = threading.Thread(target=self._run, args=(chief, *save), daemon=True)
        self._thread.start()
        assert reached.wait(30.0)

    def _run(self, chief, *save):
        try:
            chief.save(*save)
        except BaseException as error:
            self.end = error

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._go_on.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()


# --- One chief ----------------------------------------------------------------------------------


def test_a_chief_saves_prunes_and_replaces(root):
    chief = lab.Chief(f"{root}/run", max_to_keep=2)
    for number in range(1, 5):
        chief.save(f"ckpt-{number}", number, workers=1 + number % 3)
        assert lab.restorable(chief.directory) == (f"ckpt-{number}", number)
    chief.save("ckpt-3", 7, workers=2)
    assert lab.restorable(chief.directory) == ("ckpt-3", 7)
    assert lab.leftovers(chief.directory, ["ckpt-3", "ckpt-4"]) == ([], [])


@EVERY
@pytest.mark.parametrize("title", SCENES)
def test_a_death_loses_nothing(title, every, scheme, root):
    scene = SCENES[title]
    for k, moment in sample(deaths(title, root), title, 2 * rarely(every, title, scheme)):
        directory = f"{root}/{k}-{moment}"
        check_death(scene, directory, k, moment)


# --- Two chiefs ---------------------------------------------------------------------------------


def test_a_second_chief_takes_over_and_the_first_says_from_whom(root):
    first, second = lab.Chief(f"{root}/run"), lab.Chief(f"{root}/run")
    first.save("ckpt-1", 1)
    second.save("ckpt-2", 2)
    says = rf"by {re.escape(socket.gethostname())} \(pid {os.getpid()}, term 2\) at \d+-.* UTC"
    with pytest.raises(SupersededError, match=says):
        first.save("ckpt-3", 3)
    assert lab.restorable(second.directory) == ("ckpt-2", 2)
    assert lab.leftovers(second.directory, ["ckpt-1", "ckpt-2"]) == ([], [])


@EVERY
@pytest.mark.parametrize("title", [t for t in SCENES if t != "first save"])
def test_a_paused_chief_does_no_harm(title, every, scheme, root):
    assert play_all(title, root, every=rarely(every, title, scheme)) == set()


def test_a_folder_that_comes_back_is_nobodys_and_goes(memory):
    """A worker of a replaced chief writes on."""
    old, new = lab.Chief(f"{memory}/run", FaultyStorage(GFileStorage())), lab.Chief(f"{memory}/run")
    old.save("ckpt-1", 1)
    with Going(old, Where("write", "*/shard-*"), "ckpt-2", 2) as paused:
        new.save("ckpt-2", 3)
    assert isinstance(paused.end, SupersededError)
    assert lab.restorable(new.directory) == ("ckpt-2", 3)
    new.save("ckpt-3", 4)
    assert lab.leftovers(new.directory, ["ckpt-2", "ckpt-3"]) == ([], [])


def test_what_a_replaced_chief_takes_away_it_puts_back(memory):
    """It is about to remove a file, when its successor deletes the rest and saves it again."""
    storage = FaultyStorage(GFileStorage())
    old = lab.Chief(f"{memory}/run", storage, max_to_keep=1)
    new = lab.Chief(f"{memory}/run", max_to_keep=9)
    old.save("ckpt-1", 1)
    where = Where("rename", "*.pending-*/ckpt-1.data-00000-of-00001")
    with Going(old, where, "ckpt-2", 2):
        new.save("ckpt-1", 3)
    Verifier(new.storage, new.directory).verify("ckpt-1")
    assert lab.restorable(new.directory) == ("ckpt-1", 3)
    new.save("ckpt-4", 4)
    assert lab.leftovers(new.directory, ["ckpt-2", "ckpt-1", "ckpt-4"]) == ([], [])


def test_readers_write_nothing(root):
    chief = lab.Chief(f"{root}/run")
    chief.save("ckpt-1", 1)
    storage = FaultyStorage(GFileStorage())
    names = Catalog(storage, chief.directory).candidates(2e9)
    for name in names:
        Verifier(storage, chief.directory).verify(name)
    assert names == ["ckpt-1"]
    assert not any(operation.kind in WRITING for operation in storage.operations)


# --- Taking a term ----------------------------------------------------------------------------


def test_chiefs_that_come_at_once_never_take_the_same_term(root):
    taken, start = [], threading.Barrier(4)

    def take(number):
        start.wait(30.0)
        for _ in range(5):
            ownership = Ownership(GFileStorage(), f"{root}/run", durable=True)
            ownership.take()
            taken.append(ownership.term)

    run_in_threads(take, range(4), 60)
    assert len(taken) == 20
    assert len(set(taken)) == 20


def test_a_chief_that_died_while_it_took_a_term_holds_nobody_up(root):
    chief = lab.Chief(f"{root}/run")
    chief.save("ckpt-1", 1)
    claim = ".00000002.json.0123456789abcdef.tmp"
    terms = layout.terms_folder(chief.directory)
    chief.storage.write(layout.join(terms, claim), b"{", durable=True)
    successor = lab.Chief(chief.directory)
    successor.save("ckpt-2", 2)
    assert successor.ownership.term == 3
    assert lab.leftovers(successor.directory, ["ckpt-1", "ckpt-2"]) == ([], [])


# --- What cannot be promised --------------------------------------------------------------------


class SlowCopy(GFileStorage):
    """A rename is a copy and a removal, and the copy is long on its way.

    Attributes:
      begun: Set when that of `name` has begun.
      go_on: What it waits for.
    """

    def __init__(self, name):
        self._name = name
        self.begun, self.go_on = threading.Event(), threading.Event()

    def rename(self, source, target):
        if not source.endswith(self._name) or self.begun.is_set():
            super().rename(source, target)
            return
        data = self.read(source)
        self.begun.set()
        assert self.go_on.wait(30.0)
        self.write(target, data, durable=True)
        self.remove(source)


def test_a_copy_that_has_begun_may_arrive_late_and_is_noticed(memory):
    """The one request that is on its way when a chief is paused: nothing can call it back."""
    storage = SlowCopy("/ckpt-2.index")
    old, new = lab.Chief(f"{memory}/run", storage), lab.Chief(f"{memory}/run")
    old.save("ckpt-1", 1)

    def save():
        with contextlib.suppress(SupersededError):
            old.save("ckpt-2", 2)

    thread = threading.Thread(target=save, daemon=True)
    thread.start()
    assert storage.begun.wait(30.0)
    new.save("ckpt-2", 3)
    storage.go_on.set()
    thread.join(30.0)
    with pytest.raises(CheckpointDamagedError):
        Verifier(new.storage, new.directory).verify("ckpt-2")
    Verifier(new.storage, new.directory).verify("ckpt-1")
    new.save("ckpt-3", 4)
    assert lab.restorable(new.directory) == ("ckpt-3", 4)
