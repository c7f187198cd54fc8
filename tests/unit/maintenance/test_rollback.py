"""Going back: what is set aside, and what a process that dies or is paused in it leaves."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pathlib
import shutil
import threading
import time

import pytest
import tensorflow as tf

from distckpt.core import layout, listings
from distckpt.directory.catalog import Catalog
from distckpt.errors import ConfigurationError, DirectoryError, DistckptError
from distckpt.maintenance.exclusive_access import ExclusiveAccess
from distckpt.maintenance.rollback_plan import RollbackPlanner
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import (
    AFTER,
    BEFORE,
    DURING,
    Fault,
    FaultyStorage,
    ProcessDied,
    Where,
    dies,
    fails,
    pauses,
)

from ..kit import lab

ALL = [f"ckpt-{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """ckpt-1 to ckpt-5, the even ones of two workers; the job has ended."""
    directory = tmp_path_factory.mktemp("template") / "run"
    chief = lab.Chief(directory, max_to_keep=9)
    for number, name in enumerate(ALL, 1):
        chief.save(name, number, 2 - number % 2)
    chief.ownership.release()
    return directory


@pytest.fixture
def run(template, tmp_path):
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run"


def roll_back(directory, name, storage=None):
    """Goes back as the command does; returns the path of the folder with what is set aside."""
    storage = storage or lab.FastStorage()
    with ExclusiveAccess(storage, str(directory), take_over=True) as access:
        planner = RollbackPlanner(storage, str(directory), name, time.time())
        later = planner.later()
        if not later:
            done = access.finished
            return done and layout.join(str(directory), done.folder)
        return access.rollbacks.run(planner.plan(later, access.ownership.term))


def newest(directory):
    """Returns what distckpt restores, and what plain TensorFlow finds."""
    path = tf.train.latest_checkpoint(str(directory))
    return lab.restorable(directory)[0], path and os.path.basename(path)


def checkpoints(directory):
    """Returns the names and the values of all that stands in a directory, whole."""
    found = listings.classify(os.listdir(directory)).checkpoints
    return {name: lab.number_of(directory, name) for name in found}


def numbers(*wanted):
    return {f"ckpt-{number}": number for number in wanted}


# --- What it does


@pytest.mark.parametrize("to", [1, 3, 4])
def test_what_came_later_is_set_aside(run, to):
    later = range(to + 1, 6)
    folder = roll_back(run, f"ckpt-{to}")
    assert os.path.dirname(folder) == str(run)
    assert newest(run) == (f"ckpt-{to}", f"ckpt-{to}")
    assert checkpoints(run) == numbers(*range(1, to + 1))
    assert newest(folder) == ("ckpt-5", "ckpt-5")
    assert checkpoints(folder) == numbers(*later)
    listed = [k.name for k in Catalog(LocalStorage(), str(run)).view(time.time()).active]
    assert listed == ALL[:to]
    assert not os.path.exists(layout.rollback_path(str(run)))


def test_a_job_goes_on_with_the_next_number(run):
    folder = roll_back(run, "ckpt-3")
    chief = lab.Chief(run, max_to_keep=2)
    chief.save("ckpt-4", 44)
    assert newest(run) == ("ckpt-4", "ckpt-4")
    assert checkpoints(run) == {"ckpt-3": 3, "ckpt-4": 44}
    assert checkpoints(folder) == numbers(4, 5)


def test_it_is_undone_by_moving_the_files_back(run):
    before = lab.content(run)
    folder = pathlib.Path(roll_back(run, "ckpt-2"))
    for path in folder.iterdir():
        path.rename(run / path.name)
    folder.rmdir()
    after = lab.content(run)
    public = {file for file in {*before, *after} if not file.startswith(".distckpt/")}
    assert all(before.get(file) == after.get(file) for file in public)


def test_back_and_back_again(run):
    first = roll_back(run, "ckpt-4")
    second = roll_back(run, "ckpt-2")
    assert checkpoints(first) == numbers(5)
    assert checkpoints(second) == numbers(3, 4)
    assert newest(run) == ("ckpt-2", "ckpt-2")


def test_to_one_that_is_listed_no_more(run):
    """As ``keep_checkpoint_every_n_hours`` preserves them."""
    lab.point_to(run, ["ckpt-4", "ckpt-5"], last_preserved=time.time() - 1)
    roll_back(run, "ckpt-2")
    assert newest(run) == ("ckpt-2", "ckpt-2")
    assert checkpoints(run) == numbers(1, 2)
    assert lab.Chief(run).managed.latest == "ckpt-2"
    assert [k.name for k in lab.Chief(run).managed.active] == ["ckpt-2"]


def test_to_one_of_plain_tensorflow(tmp_path):
    for name, number in (("ckpt-1", 1), ("ckpt-2", 2)):
        lab.plain_save(tmp_path, name, number, listed=False)
    lab.point_to(tmp_path, ["ckpt-1", "ckpt-2"])
    lab.Chief(tmp_path, max_to_keep=9).save("ckpt-3", 3)
    folder = roll_back(tmp_path, "ckpt-1")
    assert newest(tmp_path) == ("ckpt-1", "ckpt-1")
    assert checkpoints(folder) == numbers(2, 3)


def test_what_plain_tensorflow_saved_later_goes_too(run):
    lab.plain_save(run, "ckpt-6", 6, listed=False)
    lab.point_to(run, ["ckpt-4", "ckpt-5", "ckpt-6"])
    folder = roll_back(run, "ckpt-4")
    assert newest(run) == ("ckpt-4", "ckpt-4")
    assert checkpoints(folder) == numbers(5, 6)


def test_a_damaged_one_of_a_higher_number_goes_too_and_a_stranger_stays(run):
    (run / "ckpt-5.manifest.json").write_bytes(b"{")
    lab.plain_save(run, "copy-9", 9, listed=False)
    folder = roll_back(run, "ckpt-3")
    assert newest(run) == ("ckpt-3", "ckpt-3")
    assert checkpoints(run) == {**numbers(1, 2, 3), "copy-9": 9}
    assert checkpoints(folder) == numbers(4, 5)
    assert newest(folder) == ("ckpt-4", "ckpt-4")


def test_to_a_strange_one_is_refused(run):
    lab.plain_save(run, "copy-9", 9, listed=False)
    with pytest.raises(ConfigurationError, match=r"does not list, .*`distckpt import"):
        roll_back(run, "copy-9")


def test_nothing_came_later(run):
    assert roll_back(run, "ckpt-5") is None
    assert newest(run) == ("ckpt-5", "ckpt-5")


def test_a_folder_that_is_a_link_is_refused(run, tmp_path):
    (run / ".distckpt" / "set_aside").symlink_to(tmp_path)
    with pytest.raises(DirectoryError, match="is a link"):
        roll_back(run, "ckpt-4")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"to": "../x"}'])
def test_a_damaged_file_of_a_rollback_keeps_all_from_writing_but_not_from_reading(run, text):
    (run / ".distckpt" / "rollback.json").write_text(text)
    assert lab.restorable(run)[0] == "ckpt-5"
    with pytest.raises(DirectoryError, match=r"rollback\.json is damaged"):
        roll_back(run, "ckpt-4")
    with pytest.raises(DirectoryError, match=r"rollback\.json is damaged"):
        lab.Chief(run, max_to_keep=9).save("ckpt-6", 6)


# --- A death, an error, a pause


def go(directory, storage):
    return roll_back(directory, "ckpt-3", storage)


@functools.cache
def operations(template):
    """Returns the kinds of the writing operations of an undisturbed rollback."""
    directory = template.parent / "undisturbed"
    shutil.copytree(template, directory)
    storage = FaultyStorage(lab.FastStorage())
    go(directory, storage)
    return tuple(o.kind for o in storage.operations if o.writing)


def disturbed(template, effect, moments):
    """Yields (directory, storage, what) for every operation of a rollback to be disturbed."""
    for k, kind in enumerate(operations(template), 1):
        for moment in moments:
            if moment == DURING and kind not in ("write", "create", "remove_tree"):
                continue
            directory = template.parent / f"{threading.get_ident()}-{time.monotonic_ns()}"
            shutil.copytree(template, directory)
            storage = FaultyStorage(lab.FastStorage())
            storage.add(Fault(effect, Where(writing=k), moment))
            yield directory, storage, f"{moment} operation {k}, {kind}"
            shutil.rmtree(directory)


def check_nothing_is_lost(template, directory):
    """Every file of every checkpoint is somewhere, as it was."""
    there = {}
    for path in directory.rglob("ckpt-*"):
        if path.is_file():
            there.setdefault(path.name, []).append(path.read_bytes())
    for path in template.glob("ckpt-*"):
        assert path.read_bytes() in there.get(path.name, []), f"{path.name} is lost"


def check_readers(directory):
    ours, plain = newest(directory)
    assert ours in ("ckpt-3", "ckpt-5")
    assert plain in ("ckpt-3", "ckpt-5")
    for folder in directory.glob("set-aside-*"):
        assert checkpoints(folder) == numbers(4, 5)
        assert newest(folder) == ("ckpt-5", "ckpt-5")
    return ours


def check_settled(directory):
    """Nothing is left over, but for what was set aside."""
    files = {f for f in lab.files_in(directory) if "set-aside-" not in f and "holds" not in f}
    private = {f for f in files if f.startswith(".distckpt/") or "pending" in f or ".tmp" in f}
    private -= {".distckpt/set_aside/", ".distckpt/abandoned/"}
    assert [f for f in private if not f.startswith(".distckpt/terms/")] == []


def again(directory, newest_now):
    go(directory, None)
    assert newest(directory) == ("ckpt-3", "ckpt-3")
    assert checkpoints(directory) == numbers(1, 2, 3)


def save(directory, newest_now):
    """A job has restored what was newest, and saves the next number."""
    name = "ckpt-4" if newest_now == "ckpt-3" else "ckpt-6"
    lab.Chief(directory, max_to_keep=9).save(name, 77)
    assert newest(directory) == (name, name)
    rest = numbers(1, 2, 3) if name == "ckpt-4" else numbers(1, 2, 3, 4, 5)
    assert checkpoints(directory) == {**rest, name: 77}


def clean_up(directory, newest_now):
    with ExclusiveAccess(lab.FastStorage(), str(directory), take_over=True) as access:
        access.clean_up(time.time())
    assert newest(directory) == (newest_now, newest_now)


@pytest.mark.parametrize("then", [again, save, clean_up])
def test_a_death_anywhere_loses_nothing_and_the_next_one_finishes(template, then):
    seen = set()
    for directory, storage, what in disturbed(template, dies(), (BEFORE, DURING, AFTER)):
        with contextlib.suppress(ProcessDied):
            go(directory, storage)
        with explained(directory, storage, what):
            assert storage.dead
            check_nothing_is_lost(template, directory)
            found = check_readers(directory)
            seen.add(found)
            then(directory, found)
            check_nothing_is_lost(template, directory)
            check_settled(directory)
            folders = list(directory.glob("set-aside-*"))
            assert len(folders) == (then is again or found == "ckpt-3")
            assert [checkpoints(folder) for folder in folders] == [numbers(4, 5)] * len(folders)
    assert seen == {"ckpt-3", "ckpt-5"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_anywhere_loses_nothing_and_the_next_one_finishes(template, code):
    for directory, storage, what in disturbed(template, fails(code), (BEFORE, AFTER)):
        with contextlib.suppress(OSError, DistckptError):
            go(directory, storage)
        with explained(directory, storage, what):
            check_nothing_is_lost(template, directory)
            again(directory, check_readers(directory))
            check_nothing_is_lost(template, directory)
            check_settled(directory)


def test_one_that_was_paused_does_its_successor_no_harm(template):
    """The successor is a job that goes on from what it finds."""
    for directory, storage, what in disturbed(template, None, (BEFORE, AFTER)):
        reached, go_on = threading.Event(), threading.Event()
        (fault,) = storage._faults
        storage._faults[:] = [Fault(pauses(reached, go_on), fault.where, fault.moment)]
        ends = []
        thread = threading.Thread(target=go_to_the_end, args=(directory, storage, ends))
        thread.start()
        assert reached.wait(30.0)
        with explained(directory, storage, what):
            found = check_readers(directory)
            save(directory, found)
            before = lab.content(directory)
            go_on.set()
            thread.join(30.0)
            assert ends == [None] or isinstance(ends[0], (OSError, DistckptError))
            after = lab.content(directory)
            changed = {f for f in before if before[f] != after.get(f) and f[0] != "."}
            assert not changed, f"it damaged {sorted(changed)}; it ended with {ends}"
            check_nothing_is_lost(template, directory)


def go_to_the_end(directory, storage, ends):
    try:
        go(directory, storage)
    except Exception as error:
        ends.append(error)
    else:
        ends.append(None)


def test_what_plain_tensorflow_saves_after_a_death_stays(template):
    for directory, storage, what in disturbed(template, dies(), (BEFORE,)):
        with contextlib.suppress(ProcessDied):
            go(directory, storage)
        lab.plain_save(directory, "ckpt-4", 44)
        with explained(directory, storage, what):
            assert newest(directory) == ("ckpt-4", "ckpt-4")
            lab.Chief(directory, max_to_keep=9).save("ckpt-9", 9)
            assert lab.number_of(directory, "ckpt-4") == 44
            assert newest(directory) == ("ckpt-9", "ckpt-9")


@contextlib.contextmanager
def explained(directory, storage, what):
    """Adds to a failure what the disturbed process did."""
    try:
        yield
    except BaseException as error:
        story = storage.story().replace(str(directory), "")
        files = "\n".join(sorted(lab.files_in(directory)))
        raise AssertionError(f"{what} of\n{story}\nthere is\n{files}\n{error}") from error


# --- Somebody changes TensorFlow's file instead


def test_a_file_of_tensorflow_that_was_set_back_is_noticed(run):
    tf.compat.v1.train.update_checkpoint_state(str(run), str(run / "ckpt-2"))
    assert lab.restorable(run)[0] == "ckpt-5"
    assert Catalog(LocalStorage(), str(run)).set_back("ckpt-5") == "ckpt-2"
    roll_back(run, "ckpt-2")
    assert newest(run) == ("ckpt-2", "ckpt-2")
    assert Catalog(LocalStorage(), str(run)).set_back("ckpt-2") is None


def test_one_that_was_edited_by_hand_too(run):
    path = run / "checkpoint"
    path.write_text(path.read_text().replace('path: "ckpt-5"', 'path: "ckpt-4"', 1))
    assert Catalog(LocalStorage(), str(run)).set_back("ckpt-5") == "ckpt-4"


@pytest.mark.parametrize("commits", [1, 3])
def test_one_that_a_dead_chief_has_left_behind_is_not(run, commits):
    for number in range(6, 6 + commits):
        storage = FaultyStorage(lab.FastStorage())
        storage.add(Fault(dies(), Where("write", "*/checkpoint")))
        with contextlib.suppress(ProcessDied):
            lab.Chief(run, storage, max_to_keep=9).save(f"ckpt-{number}", number)
    name = f"ckpt-{5 + commits}"
    assert newest(run) == (name, "ckpt-5")
    assert Catalog(LocalStorage(), str(run)).set_back(name) is None


def test_nor_one_that_is_right_or_gone_or_names_another_place(run):
    catalog = Catalog(LocalStorage(), str(run))
    assert catalog.set_back("ckpt-5") is None
    lab.point_to(run, ["/elsewhere/ckpt-9"])
    assert catalog.set_back("ckpt-5") is None
    (run / "checkpoint").unlink()
    assert catalog.set_back("ckpt-5") is None
