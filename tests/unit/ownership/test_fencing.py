"""Ownership of a directory: terms, attempts, and the error of a replaced process."""

from __future__ import annotations

import errno
import json
import os

import pytest

from distckpt.core import attempts
from distckpt.errors import DirectoryError, SupersededError
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.owner_record import find
from distckpt.ownership.process_terms import ownership_of
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import AFTER, Fault, FaultyStorage, Where, fails

from .owners import owner, terms


def test_the_first_process_takes_term_1_and_keeps_it(tmp_path):
    first = owner(tmp_path)
    assert first.term is None
    assert first.take()
    assert first.term == 1
    assert not first.take()
    assert terms(tmp_path) == ["00000001.json"]
    first.check()


def test_a_term_says_who_took_it_and_when(tmp_path):
    owner(tmp_path).take()
    who = json.loads((tmp_path / ".distckpt/terms/00000001.json").read_bytes())
    assert who["pid"] == os.getpid()
    assert who["host"]
    assert who["since"] > 1.7e9


def test_a_replaced_process_is_told_by_whom(tmp_path):
    first, second = owner(tmp_path), owner(tmp_path)
    first.take()
    second.take()
    second.check()
    text = rf"pid {os.getpid()}, term 2\) at \d+-.*term 1\)"
    with pytest.raises(SupersededError, match=text) as caught:
        first.check()
    assert caught.value.successor == str(find(LocalStorage(), str(tmp_path)))


def test_a_damaged_term_file_counts_all_the_same(tmp_path):
    first = owner(tmp_path)
    first.take()
    (tmp_path / ".distckpt/terms/00000005.json").write_bytes(b"\x00")
    with pytest.raises(SupersededError, match=r"another process \(term 5\)"):
        first.check()


def test_a_process_without_a_term_owns_nothing(tmp_path):
    with pytest.raises(SupersededError):
        owner(tmp_path).check()


def test_a_term_that_may_not_be_durable_is_not_relied_on(tmp_path):
    fault = Fault(fails(errno.EIO), Where("flush_directory"), AFTER)
    process = owner(tmp_path, FaultyStorage(LocalStorage(), [fault]))
    with pytest.raises(OSError, match="Input/output"):
        process.take()
    assert process.term is None
    assert process.take()
    assert process.term == 2


def test_lower_terms_are_forgotten_and_higher_ones_are_not(tmp_path):
    processes = [owner(tmp_path) for _ in range(3)]
    for process in processes:
        process.take()
    with pytest.raises(SupersededError):
        processes[1].forget_older()
    assert terms(tmp_path) == ["00000001.json", "00000002.json", "00000003.json"]
    processes[2].forget_older()
    assert terms(tmp_path) == ["00000003.json"]
    with pytest.raises(SupersededError):
        processes[0].check()


def test_attempts_are_unique_and_sort_by_age(tmp_path):
    first, second = owner(tmp_path), owner(tmp_path)
    first.take()
    made = [first.held_term.next_attempt() for _ in range(3)]
    second.take()
    made.append(second.held_term.next_attempt())
    assert made == sorted(set(made))
    assert [attempts.parse_attempt_id(a)[:2] for a in made] == [(1, 1), (1, 2), (1, 3), (2, 1)]


def test_a_pending_folder_is_made_before_the_term_is_checked(tmp_path):
    storage = FaultyStorage(LocalStorage())
    process = owner(tmp_path, storage)
    process.take()
    done = len(storage.operations)
    process.enter("ckpt-1.pending-x")
    kinds = [o.kind for o in storage.operations[done:]]
    assert kinds == ["make_directory", "freshen", "list", "read", "flush_directory"]
    assert process.held_term.in_flight == {"ckpt-1.pending-x"}


def test_a_replaced_process_leaves_no_pending_folder(tmp_path):
    first, second = owner(tmp_path), owner(tmp_path)
    first.take()
    second.take()
    with pytest.raises(SupersededError):
        first.enter("ckpt-1.pending-x")
    assert not (tmp_path / "ckpt-1.pending-x").exists()


def test_looking_for_the_cause_of_an_error_never_hides_it(tmp_path):
    process = owner(tmp_path, FaultyStorage(LocalStorage()))
    process.check_cause()  # before it has a term
    process.take()
    process._storage.add(Fault(fails(errno.EIO), Where("list")))
    process.check_cause()  # though the directory cannot be read
    owner(tmp_path).take()
    with pytest.raises(SupersededError):
        process.check_cause()


def test_all_managers_of_a_process_share_its_hold(tmp_path):
    def manager(path):
        return ownership_of(LocalStorage(), str(path), durable=True)

    one, two, other = manager(tmp_path), manager(tmp_path), manager(tmp_path / "other")
    assert [m.take() for m in (one, two, other)] == [True, False, True]
    assert two.held_term is one.held_term
    assert other.held_term is not one.held_term
    made = [m.held_term.next_attempt() for m in (one, two, one)]
    assert [attempts.parse_attempt_id(a)[:2] for a in made] == [(1, 1), (1, 2), (1, 3)]


def test_the_folders_above_are_flushed_for_they_may_be_new(tmp_path):
    storage = FaultyStorage(LocalStorage())
    directory = tmp_path / "runs" / "one"
    Ownership(storage, str(directory), durable=True).take()
    flushed = {o.paths[0] for o in storage.operations if o.kind == "flush_directory"}
    assert {str(tmp_path / "runs"), str(tmp_path), "/"} <= flushed


def test_who_looks_for_terms_looks_at_no_old_listing(tmp_path):
    """An NFS client must change a folder to see what is in it."""
    storage = FaultyStorage(LocalStorage())
    ownership = Ownership(storage, str(tmp_path), durable=True)
    ownership.take()
    ownership.enter("ckpt-1.pending-00000001-000001-abc")
    there = [o.kind for o in storage.operations if o.paths[0].endswith("terms")]
    kinds = [kind for kind in there if kind != "is_link"]
    look = ["freshen", "list"]
    # The terms that there are; the owner, before and after the new file; and, to enter, the owner.
    assert kinds == ["make_directory", *look, *look, *look, *look]


def test_who_goes_on_looks_at_no_old_listing_either(tmp_path):
    storage = FaultyStorage(LocalStorage())
    ownership = Ownership(storage, str(tmp_path), durable=True)
    ownership.take()
    done = len(storage.operations)
    ownership.take()
    seen = [(o.kind, o.paths[0].removeprefix(str(tmp_path))) for o in storage.operations[done:]]
    terms = "/.distckpt/terms"
    assert seen == [
        ("freshen", terms),
        ("list", terms),
        ("read", f"{terms}/00000001.json"),
        ("freshen", ""),
        ("list", ""),
    ]


@pytest.mark.parametrize("text", ['{"since": 1e30, "host": "a", "pid": 1}', "[" * 100_000, "{}"])
def test_who_has_taken_over_may_have_written_nonsense(tmp_path, text):
    process, other = owner(tmp_path), owner(tmp_path)
    process.take()
    other.take()
    (tmp_path / ".distckpt" / "terms" / "00000002.json").write_text(text)
    with pytest.raises(SupersededError, match="taken over by another process"):
        process.check()


def test_an_error_of_the_storage_is_not_taken_for_another_owner(tmp_path):
    storage = FaultyStorage(LocalStorage())
    job = owner(tmp_path, storage)
    job.take()
    storage.add(Fault(fails(errno.EIO), Where("read", "*/00000001.json")))
    with pytest.raises(OSError, match="Input/output"):
        job.check()
    job.check()


@pytest.mark.parametrize("link", [".distckpt", ".distckpt/terms", ".distckpt/abandoned"])
def test_a_private_folder_that_is_a_link_is_refused(tmp_path, link):
    """A symbolic link must not redirect a deletion."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / link).parent.mkdir(parents=True)
    (tmp_path / "run" / link).symlink_to(tmp_path / "outside")
    with pytest.raises(DirectoryError, match=f"{link} is a link"):
        owner(tmp_path / "run").take()
    assert list((tmp_path / "outside").iterdir()) == []
