"""A job that has restored but not saved yet: another job may come before its first save."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys

import pytest

from distckpt.errors import DirectoryClearedError, DistckptError, SupersededError
from distckpt.maintenance.exclusive_access import ExclusiveAccess
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.held_terms import HeldTerms
from distckpt.ownership.owner_record import find
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import AFTER, BEFORE, Fault, FaultyStorage, Where, fails

from ..kit import lab
from .owners import plant, terms

SINCE = (
    r"has been taken over by .*\(pid \d+, term \d+\) at \d+-.* UTC since this job restored from it"
)


def job(directory, storage=None, *, process=None, restores=True):
    """Returns a manager's `Ownership`; the managers of a `process` share what it holds."""
    storage = storage or LocalStorage()
    found = Ownership(storage, str(directory), durable=False, held_terms=process)
    if restores:
        restore(found)
    return found


def restore(ownership):
    ownership.memory.look()
    ownership.memory.restored()


def refuse(ownership):
    """Checks that a first save is refused, again and again; returns the error."""
    before = None
    for _ in range(2):
        with pytest.raises(SupersededError, match=SINCE) as caught, ownership.telling():
            ownership.take()
        assert ownership.term is None
        assert before in (None, str(caught.value))
        before = str(caught.value)
    return caught.value


@pytest.fixture(params=["owned", "nobody's"])
def run(request, tmp_path):
    """A directory whose last job has died, or in which no job has ever saved."""
    run = tmp_path / "run"
    run.mkdir()
    if request.param == "owned":
        job(run, restores=False).take()
    return run


def test_who_finds_it_as_it_was_takes_it(run):
    """The owner's file is still there, and says by now that it has ended, or not."""
    first = job(run)
    assert first.take()
    second = job(run)
    first.release()
    assert second.take()
    second.check()


def test_a_job_that_was_held_up_does_not_come_back(run):
    old = job(run)
    new = job(run)
    assert new.take()
    before = terms(run)
    error = refuse(old)
    assert error.successor == str(find(LocalStorage(), str(run)))
    assert terms(run) == before
    new.check()


def test_of_two_that_begin_at_once_the_one_that_saves_first_goes_on(run):
    one, two = job(run), job(run)
    assert two.take()
    refuse(one)
    two.check()


def test_who_restores_again_goes_on_from_that(run):
    old, new = job(run), job(run)
    new.take()
    refuse(old)
    restore(old)
    assert old.take()
    with pytest.raises(SupersededError):
        new.check()


def test_a_restore_that_fails_is_not_remembered(run):
    old, new = job(run), job(run)
    new.take()
    old.memory.look()
    refuse(old)


def test_who_does_not_restore_takes_it_as_ever(run):
    job(run).take()
    assert job(run, restores=False).take()


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
def test_whoever_comes_at_any_operation_of_the_first_save_one_of_the_two_goes_on(run, moment):
    number, operations = 0, 1
    while number < operations:
        directory = run.parent / str(number)
        shutil.copytree(run, directory)
        storage = FaultyStorage(LocalStorage())
        old, new = job(directory, storage), job(directory)
        before = len(storage.operations)

        def come(storage, operation, at=before + 1 + number, new=new):
            if operation.number == at:
                attempt(new.take)

        storage.add(Fault(come, moment=moment, times=10**6))
        attempt(old.take)
        operations = len(storage.operations) - before
        ended = [attempt(old.check), attempt(new.check)]
        assert ended.count(None) == 1, (number, ended)
        number += 1
    assert number > 10


def attempt(call):
    try:
        call()
    except DistckptError as error:
        return error
    return None


# --- Cleared, moved, copied


def test_where_it_was_cleared_since_that_is_told_once(tmp_path):
    job(tmp_path, restores=False).take()
    old = job(tmp_path)
    shutil.rmtree(tmp_path / ".distckpt")
    said = r"was cleared or moved since this job restored from it at .*save again"
    with pytest.raises(DirectoryClearedError, match=said), old.telling():
        old.take()
    assert old.take()
    old.check()


def test_who_comes_after_that_word_keeps_it(tmp_path):
    job(tmp_path, restores=False).take()
    old = job(tmp_path)
    shutil.rmtree(tmp_path / ".distckpt")
    with pytest.raises(DirectoryClearedError), old.telling():
        old.take()
    new = job(tmp_path)
    new.take()
    refuse(old)
    new.check()


def test_a_job_in_the_place_of_a_cleared_directory_keeps_it(tmp_path):
    """Though its term has the same number."""
    job(tmp_path, restores=False).take()
    old = job(tmp_path)
    shutil.rmtree(tmp_path / ".distckpt")
    new = job(tmp_path)
    new.take()
    assert new.term == 1
    refuse(old)
    new.check()


def test_a_backup_of_an_earlier_owner_is_not_what_was_restored(tmp_path):
    job(tmp_path, restores=False).take()
    shutil.copytree(tmp_path / ".distckpt", tmp_path / "backup")
    job(tmp_path).take()
    old = job(tmp_path)
    shutil.rmtree(tmp_path / ".distckpt")
    shutil.move(tmp_path / "backup", tmp_path / ".distckpt")
    refuse(old)


def test_an_owner_that_takes_a_higher_term_is_the_same_one(tmp_path):
    """It does so when a checkpoint was copied in: it began before the new job, and still does."""
    owner = job(tmp_path, restores=False)
    owner.take()
    new = job(tmp_path)
    plant(tmp_path, "ckpt-1", 5)
    assert owner.take()
    assert owner.term == 6
    assert new.take()


def test_an_owner_whose_file_is_damaged_is_told_from_nobody(tmp_path):
    old = job(tmp_path)
    (tmp_path / ".distckpt/terms").mkdir(parents=True)
    (tmp_path / ".distckpt/terms/00000005.json").write_bytes(b"{")
    with pytest.raises(SupersededError, match=r"another process \(term 5\) since this job"):
        old.take()
    again = job(tmp_path)
    assert again.take()


# --- Several managers in one process


def test_managers_of_one_process_do_not_hold_each_other_up(run):
    process = HeldTerms()
    first, second = job(run, process=process), job(run, process=process)
    assert first.take()
    assert not second.take()
    third = job(run, process=process)
    assert not third.take()
    assert third.held_term is first.held_term


def test_one_that_has_not_restored_goes_by_another_one_of_its_process(run):
    """That of the best checkpoints beside that of all: it may be the first one to save."""
    process = HeldTerms()
    both = job(run, process=process), job(run, process=process, restores=False)
    new = job(run)
    new.take()
    for manager in reversed(both):
        refuse(manager)
    new.check()


def test_a_process_that_was_replaced_leaves_its_successor_alone_also_after_a_restore(run):
    process = HeldTerms()
    job(run, process=process).take()
    new = job(run)
    new.take()
    with pytest.raises(SupersededError):
        job(run, process=process).take()
    new.check()


def test_a_term_that_may_not_be_durable_is_no_other_process(run):
    fault = Fault(fails(errno.EIO), Where("create"), AFTER)
    storage = FaultyStorage(LocalStorage(), [fault])
    old = job(run, storage)
    with pytest.raises(OSError, match="Input/output"):
        old.take()
    assert old.take()
    old.check()


FORK = """
import os, sys
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.process_terms import ownership_of
from distckpt.storage.local import LocalStorage
mine = ownership_of(LocalStorage(), sys.argv[1], durable=False)
mine.memory.look()
mine.memory.restored()
if "saves" in sys.argv:
    mine.take()
child = os.fork()
if child == 0:
    if "comes" in sys.argv:
        Ownership(LocalStorage(), sys.argv[1], durable=False).take()
    try:
        mine.take()
    except Exception as error:
        print(str(error).split(" since ")[1].split(" at ")[0])
    else:
        print("saved")
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("words", "ended"),
    [
        ([], "saved"),
        (["saves"], "saved"),
        (["comes"], "this job restored from it"),
        (["saves", "comes"], "this job took it"),
    ],
)
def test_a_forked_child_goes_on_from_what_its_parent_held(run, words, ended):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORK, str(run), *words]
    output = subprocess.check_output(command, text=True, env=environment, timeout=300)
    assert output == f"{ended}\n"


# --- Commands


def command(directory, *, only_deletes):
    with ExclusiveAccess(LocalStorage(), str(directory), take_over=True, only_deletes=only_deletes):
        pass


def test_a_command_that_only_deletes_does_not_end_a_job_that_has_restored(run):
    old = job(run)
    for _ in range(2):
        command(run, only_deletes=True)
    assert old.take()


def test_one_that_changes_what_is_the_newest_does(run):
    old = job(run)
    command(run, only_deletes=False)
    refuse(old)


@pytest.mark.parametrize("comes", ["a job", "a command"])
def test_what_came_before_a_command_that_only_deletes_is_not_hidden_by_it(run, comes):
    old = job(run)
    if comes == "a job":
        job(run).take()
    else:
        command(run, only_deletes=False)
    after = job(run)
    command(run, only_deletes=True)
    refuse(old)
    assert after.take()


# --- Looking


def test_to_look_changes_nothing_and_has_patience(run):
    fault = Fault(fails(errno.EIO), Where("list"))
    storage = FaultyStorage(LocalStorage(), [fault])
    before = lab.content(run)
    old = job(run, storage)
    assert {o.kind for o in storage.operations} <= {"list", "read"}
    assert lab.content(run) == before
    assert old.take()


def test_where_it_may_not_look_a_job_can_restore(run):
    fault = Fault(fails(errno.EACCES), Where("list"))
    storage = FaultyStorage(LocalStorage(), [fault])
    job(run, storage)
