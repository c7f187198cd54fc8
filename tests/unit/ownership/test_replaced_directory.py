"""A directory that is cleared, moved, restored from a backup, or has two paths."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time

import pytest

from distckpt.errors import DirectoryClearedError, SaveFailedError, SupersededError
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.owner_record import find
from distckpt.ownership.process_terms import ownership_of
from distckpt.runtime import host
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import AFTER, Fault, FaultyStorage, Where, fails

from .owners import owner


def test_what_comes_into_the_place_of_a_cleared_directory_is_anothers_for_good(tmp_path):
    """Its term has the same number: the first process in an empty directory takes term 1."""
    old, new = owner(tmp_path), owner(tmp_path)
    old.take()
    shutil.rmtree(tmp_path / ".distckpt")
    new.take()
    assert (old.term, new.term) == (1, 1)
    new.check()
    for call in (old.check, old.take):
        with pytest.raises(SupersededError, match=r"term 1\) at .*, or restored from a backup"):
            call()
    shutil.rmtree(tmp_path / ".distckpt")
    with pytest.raises(SupersededError):
        old.take()


def test_a_lower_term_is_anothers_too(tmp_path):
    """A backup that is restored under a running job has the term of a dead process."""
    owner(tmp_path).take()
    shutil.copytree(tmp_path / ".distckpt", tmp_path / "backup")
    job = owner(tmp_path)
    job.take()
    shutil.rmtree(tmp_path / ".distckpt")
    shutil.move(tmp_path / "backup", tmp_path / ".distckpt")
    with pytest.raises(SupersededError, match="or restored from a backup"):
        job.take()


def test_a_directory_that_was_cleared_is_taken_anew_after_one_word(tmp_path):
    job = owner(tmp_path)
    job.take()
    job.committed()
    shutil.rmtree(tmp_path / ".distckpt")
    said = r"cleared or moved while in use.*save again"
    with pytest.raises(DirectoryClearedError, match=said), job.telling():
        job.take()
    assert job.take()
    job.check()


def test_who_has_committed_nothing_there_takes_it_at_once(tmp_path):
    job = owner(tmp_path)
    job.take()
    before = job.held_term
    shutil.rmtree(tmp_path / ".distckpt")
    assert job.take()
    assert job.held_term is not before


def test_what_was_told_when_it_was_met_is_not_told_again(tmp_path):
    job = owner(tmp_path)
    job.take()
    job.committed()
    shutil.rmtree(tmp_path / ".distckpt")
    with pytest.raises(DirectoryClearedError), job.telling():
        job.check()
    assert job.take()


def test_a_new_manager_of_the_process_takes_it_at_once(tmp_path):
    old, new = (ownership_of(LocalStorage(), str(tmp_path), durable=True) for _ in range(2))
    old.take()
    old.committed()
    shutil.rmtree(tmp_path / ".distckpt")
    assert new.take()
    with pytest.raises(SaveFailedError, match="Another manager of this process"):
        old.check()  # the save in flight belongs to the old term
    assert not old.take()
    assert old.held_term is new.held_term


def test_a_new_manager_leaves_another_process_alone_and_takes_from_a_dead_one(tmp_path):
    def place(since):
        shutil.rmtree(tmp_path / ".distckpt")
        (tmp_path / ".distckpt/terms").mkdir(parents=True)
        who = {"host": host.name(), "pid": os.getppid(), "since": since, "nonce": "else"}
        (tmp_path / ".distckpt/terms/00000001.json").write_text(json.dumps(who))

    ownership_of(LocalStorage(), str(tmp_path), durable=True).take()
    place(since=time.time())
    with pytest.raises(SupersededError):
        ownership_of(LocalStorage(), str(tmp_path), durable=True).take()
    place(since=0.0)  # of an earlier process with that pid: the directory is a copy
    new = ownership_of(LocalStorage(), str(tmp_path), durable=True)
    assert new.take()
    assert new.term == 2


def test_a_directory_that_is_replaced_while_its_term_is_being_taken(tmp_path):
    """The owner's term in the new directory has the same number as the one that was looked at."""

    def replace(storage, operation):
        shutil.rmtree(tmp_path / ".distckpt")
        newer.take()

    owner(tmp_path).take()  # of a job that has ended
    storage = FaultyStorage(LocalStorage())
    late, newer = Ownership(storage, str(tmp_path), durable=True), owner(tmp_path)
    late.memory.look()
    late.memory.restored()
    storage.add(Fault(replace, Where("create")))
    with pytest.raises(SupersededError, match=r"term 1\)"):
        late.take()
    newer.check()
    assert os.listdir(tmp_path / ".distckpt/terms") == ["00000001.json"]
    with pytest.raises(SupersededError):
        late.take()


def test_who_gave_a_term_back_may_restore_again_and_save(tmp_path):
    def replace(storage, operation):
        shutil.rmtree(tmp_path / ".distckpt")
        owner(tmp_path).take()

    owner(tmp_path).take()
    storage = FaultyStorage(LocalStorage())
    late = Ownership(storage, str(tmp_path), durable=True)
    late.memory.look()
    late.memory.restored()
    storage.add(Fault(replace, Where("create")))
    storage.add(Fault(lambda storage, operation: owner(tmp_path).take(), Where("create"), AFTER))
    with pytest.raises(SupersededError):
        late.take()
    late.memory.look()
    late.memory.restored()
    assert late.take()


def test_a_directory_cleared_while_its_term_is_being_taken_is_told_as_cleared(tmp_path):
    owner(tmp_path).take()
    storage = FaultyStorage(LocalStorage())
    late = Ownership(storage, str(tmp_path), durable=True)
    late.memory.look()
    late.memory.restored()
    storage.add(Fault(fails(errno.EIO), Where("create"), AFTER))
    with pytest.raises(OSError, match="Input/output"):
        late.take()
    os.remove(tmp_path / ".distckpt/terms/00000001.json")
    with pytest.raises(DirectoryClearedError):
        late.take()


def test_a_term_in_a_replaced_directory_is_given_back_after_an_error_too(tmp_path):
    def replace(storage, operation):
        shutil.rmtree(tmp_path / ".distckpt")
        newer.take()

    owner(tmp_path).take()
    storage = FaultyStorage(LocalStorage())
    late, newer = Ownership(storage, str(tmp_path), durable=True), owner(tmp_path)
    late.memory.look()
    late.memory.restored()
    storage.add(Fault(replace, Where("create")))
    storage.add(Fault(fails(errno.EIO), Where("create"), AFTER))
    with pytest.raises(OSError, match="Input/output"):
        late.take()
    with pytest.raises(SupersededError):
        late.take()
    newer.check()


@pytest.mark.parametrize("come_back", [True, False])
def test_a_directory_that_was_moved_away_is_told_by_what_is_in_it(tmp_path, come_back):
    job = ownership_of(LocalStorage(), str(tmp_path / "run"), durable=True)
    job.take()
    job.committed()
    (tmp_path / "run").rename(tmp_path / "old")
    there = ownership_of(LocalStorage(), str(tmp_path / "old"), durable=True)
    assert not there.take()
    assert there.held_term is job.held_term
    if come_back:
        (tmp_path / "old").rename(tmp_path / "run")
        job.check()
        return
    with pytest.raises(DirectoryClearedError), job.telling():
        job.take()
    assert not (tmp_path / "run").exists()
    assert job.take()
    there.check()
    assert there.held_term is not job.held_term


@pytest.mark.parametrize("first", ["run", "link"])
def test_two_paths_to_one_directory_are_one_directory(tmp_path, first):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    managers = {
        name: ownership_of(LocalStorage(), str(tmp_path / name), durable=True)
        for name in ("run", "link")
    }
    assert managers[first].take()
    other = managers["link" if first == "run" else "run"]
    assert not other.take()
    managers[first].check()
    assert other.held_term is managers[first].held_term


def test_two_paths_to_what_is_not_there_yet_are_one_directory_when_it_is(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "parent")
    one, two = (
        ownership_of(LocalStorage(), str(tmp_path / name / "run"), durable=True)
        for name in ("parent", "link")
    )
    (tmp_path / "parent").mkdir()
    assert one.take()
    assert not two.take()


@pytest.mark.parametrize("has_committed", [False, True])
def test_who_comes_back_never_takes_the_place_of_who_has_just_come(tmp_path, has_committed):
    """A new job takes the cleared directory between any two operations of the old job."""
    number = 0
    while True:
        directory = tmp_path / str(number)
        directory.mkdir()
        storage = FaultyStorage(LocalStorage())
        old, new = owner(directory, storage), owner(directory)
        for _ in range(5):
            old.take()
            owner(directory).take()
            old = owner(directory, storage)
        old.take()
        shutil.rmtree(directory / ".distckpt")
        if has_committed:
            old.committed()
            with pytest.raises(DirectoryClearedError), old.telling():
                old.take()
        done = len(storage.operations)

        def come(storage, operation, at=done + 1 + number, new=new):
            if operation.number == at:
                new.take()

        storage.add(Fault(come, times=10**6))
        try:
            old.take()
        except SupersededError:
            new.check()
        if new.term is None:
            return
        new.check()
        with pytest.raises(SupersededError):
            old.check()
        number += 1


def test_who_has_ended_does_not_say_so_in_the_term_of_another(tmp_path):
    """Another process clears and takes the directory between two operations of `release()`."""
    kinds = ended_in_the_place_of_another(tmp_path / "look", 10**6)
    for number in range(len(kinds)):
        ended_in_the_place_of_another(tmp_path / str(number), number)


def ended_in_the_place_of_another(directory, number):
    """Lets a process end; before its operation `number`, another process takes the directory."""
    directory.mkdir()
    storage = FaultyStorage(LocalStorage())
    job, other = owner(directory, storage), owner(directory)
    job.take()
    done = len(storage.operations)

    def come(storage, operation):
        if operation.number == done + 1 + number:
            shutil.rmtree(directory / ".distckpt")
            other.take()

    storage.add(Fault(come, times=10**6))
    job.release()
    if other.term:
        other.check()
        assert find(LocalStorage(), str(directory)).ended is None
    else:
        assert find(LocalStorage(), str(directory)).ended
    return storage.operations[done:]
