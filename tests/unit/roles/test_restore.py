from __future__ import annotations

import errno
import json
import logging
import threading

import pytest

from distckpt.coordination.in_process import InProcessJob
from distckpt.core.delays import Patience
from distckpt.errors import (
    CheckpointDamagedError,
    ConfigurationError,
    DeadlineExceededError,
    DirectoryNotSharedError,
    RestoreError,
    StateMismatchError,
    WorkerLostError,
)
from distckpt.roles.books import Books
from distckpt.roles.keys import Keys
from distckpt.roles.restore import RestoreSession
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from . import lab


@pytest.fixture
def run(tmp_path):
    """A directory with ckpt-1 to ckpt-3, of two shards each."""
    chief = lab.Chief(tmp_path / "run", max_to_keep=9)
    for number in (1, 2, 3):
        chief.save(f"ckpt-{number}", number, 2)
    return tmp_path / "run"


class Group:
    """Workers that restore together, as threads.

    Args:
      directories: For each worker, its directory.
      restore: Called with (worker, name).
      storages: For each worker, its storage.
      absent: Workers that never come.
    """

    def __init__(self, *directories, restore=None, storages=None, absent=(), **options):
        self.job = InProcessJob(len(directories))
        self.restored = [[] for _ in directories]
        self.ends = [None] * len(directories)
        self.storages = storages or [FaultyStorage(LocalStorage()) for _ in directories]
        self.books = [Books(LocalStorage(), str(d), 9, None, durable=True) for d in directories]
        self._directories = [str(d) for d in directories]
        self._restore = restore or (lambda worker, name: None)
        self._absent = absent
        patience = Patience(options.pop("deadline", 20.0), options.pop("slow_factor", 1.0))
        self._options = {"patience": patience, "verify_data": True, **options}

    def go(self):
        """Lets all restore; returns the group."""
        workers = [w for w in range(self.job.count) if w not in self._absent]
        threads = [threading.Thread(target=self._run, args=(w,), daemon=True) for w in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
            assert not thread.is_alive(), "a worker waits for ever"
        return self

    def _do(self, worker, name):
        self._restore(worker, name)
        self.restored[worker].append(name)

    def _run(self, worker):
        session = RestoreSession(
            self.job.coordinator(worker),
            self.storages[worker],
            self._directories[worker],
            self.books[worker],
            Keys("m", "restore", 0),
            lambda name: self._do(worker, name),
            **self._options,
        )
        try:
            self.ends[worker] = session.run()
        except BaseException as error:
            self.ends[worker] = error

    def raised(self, kind):
        """Checks that all raised the same error and returns its text."""
        assert [type(end) for end in self.ends] == [kind] * len(self.ends), self.ends
        texts = {str(end) for end in self.ends}
        assert len(texts) == 1, texts
        return texts.pop()


def damage(run, file):
    path = run / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_all_take_the_newest(run):
    group = Group(run, run, run).go()
    assert group.ends == ["ckpt-3"] * 3
    assert group.restored == [["ckpt-3"]] * 3
    assert [b.latest for b in group.books] == ["ckpt-3"] * 3
    assert len({b.active for b in group.books}) == 1


def test_the_list_stays_as_it_is_until_the_next_save(run):
    """Be it longer than it should be: nothing is deleted by a restore."""
    group = Group(run, run)
    group.books = [Books(LocalStorage(), str(run), 1, None, durable=True) for _ in range(2)]
    group.books[0].delete = lambda names: frozenset(names)
    group.go()
    assert [len(books.active) for books in group.books] == [3, 3]


def test_restoring_never_writes(run):
    damage(run, "ckpt-3.data-00001-of-00002")
    group = Group(run, run).go()
    assert [s.writes for s in group.storages] == [0, 0]


def test_without_a_checkpoint_all_get_none(tmp_path):
    group = Group(tmp_path / "none", tmp_path / "none").go()
    assert group.ends == [None, None]
    assert group.restored == [[], []]


@pytest.mark.parametrize(
    "file",
    [
        "ckpt-3.data-00000-of-00002",
        "ckpt-3.data-00001-of-00002",
        "ckpt-3.index",
        "ckpt-3.manifest.json",
    ],
)
def test_if_the_newest_is_damaged_all_fall_back_and_the_log_says_why(run, file, caplog):
    if file.endswith("json"):
        (run / file).write_bytes((run / file).read_bytes()[:99])
    else:
        damage(run, file)
    group = Group(run, run, run).go()
    assert group.ends == ["ckpt-2"] * 3
    assert group.restored == [["ckpt-2"]] * 3, "a damaged checkpoint was restored from"
    assert "ckpt-3 is not usable" in caplog.text
    assert file in caplog.text or "index" in caplog.text


@pytest.mark.parametrize("how", ["missing", "truncated", "longer"])
def test_a_file_of_another_size_is_damage_even_if_bytes_are_not_verified(run, how):
    path = run / "ckpt-3.data-00001-of-00002"
    data = path.read_bytes()
    path.write_bytes(data + b"x" if how == "longer" else data[:-1])
    if how == "missing":
        path.unlink()
    assert Group(run, run, verify_data=False).go().ends == ["ckpt-2"] * 2


def test_damage_that_only_one_worker_finds_counts_for_all(run):
    """Each verifies its share; the others see nothing wrong."""
    damage(run, "ckpt-3.data-00001-of-00002")
    for workers in (1, 2, 3, 5):
        assert Group(*[run] * workers).go().ends == ["ckpt-2"] * workers


def test_damage_found_while_restoring_counts_for_all(run):
    def restore(worker, name):
        if worker == 1 and name == "ckpt-3":
            raise CheckpointDamagedError("bad sector on host 1")

    group = Group(run, run, restore=restore).go()
    assert group.ends == ["ckpt-2"] * 2
    assert group.restored[1] == ["ckpt-2"]


def test_the_damaged_one_is_noted_on_the_next_commit(run):
    damage(run, "ckpt-3.data-00001-of-00002")
    chief = lab.Chief(run, max_to_keep=9)
    session = RestoreSession(
        InProcessJob(1).coordinator(0),
        chief.storage,
        chief.directory,
        chief.books,
        Keys("m", "restore", 0),
        lambda name: None,
        patience=Patience(5.0),
        verify_data=True,
    )
    assert session.run() == "ckpt-2"
    assert [k.name for k in chief.books.active] == ["ckpt-1", "ckpt-2"]
    chief.save("ckpt-4", 4)
    note = json.loads((run / ".distckpt/quarantine/ckpt-3.json").read_text())
    assert note["name"] == "ckpt-3"
    assert "ckpt-3.data-00001-of-00002" in note["reason"]
    assert (run / "ckpt-3.index").exists(), "quarantine is a note, never a deletion"
    assert Group(run).go().ends == ["ckpt-4"]
    assert [k.name for k in Books(LocalStorage(), str(run), 9, None, durable=True).active] == [
        "ckpt-1",
        "ckpt-2",
        "ckpt-4",
    ]


def test_if_all_are_damaged_all_raise_and_every_reason_is_given(run):
    for number in (1, 2, 3):
        damage(run, f"ckpt-{number}.data-00000-of-00002")
    group = Group(run, run).go()
    text = group.raised(RestoreError)
    assert "None of the 3 checkpoints" in text
    assert [f"ckpt-{n}: " in text for n in (1, 2, 3)] == [True] * 3
    assert group.restored == [[], []]


def test_a_model_that_does_not_fit_is_not_taken_for_damage(run, caplog):
    caplog.set_level(logging.WARNING)

    def restore(worker, name):
        if worker == 1:
            raise ValueError("Shapes (3,) and (4,) are incompatible")

    group = Group(run, run, restore=restore).go()
    text = group.raised(RestoreError)
    assert "worker 1 could not restore ckpt-3: Shapes (3,) and (4,)" in text
    assert "not usable" not in caplog.text


def test_the_cause_is_chained_where_it_happened(run):
    cause = ValueError("Shapes differ")

    def restore(worker, name):
        if worker == 1:
            raise cause

    group = Group(run, run, restore=restore).go()
    assert group.ends[1].__cause__ is cause


def test_a_programs_error_outweighs_damage(run):
    def restore(worker, name):
        raise CheckpointDamagedError("bad") if worker == 0 else ValueError("program")

    assert "program" in Group(run, run, restore=restore).go().raised(RestoreError)


def test_different_directories_are_noticed_before_anything_is_restored(run, tmp_path):
    group = Group(run, tmp_path / "tmp-of-worker-1").go()
    text = group.raised(StateMismatchError)
    assert "worker 1 restores from" in text
    assert "Give every worker the same directory" in text
    assert isinstance(group.ends[1], ConfigurationError)
    assert group.restored == [[], []]


class Elsewhere(LocalStorage):
    """A file system on which the checkpoints are not."""

    def exists(self, path):
        return False


def test_a_directory_of_the_same_name_that_is_not_shared(run):
    group = Group(run, run, storages=[LocalStorage(), Elsewhere()]).go()
    text = group.raised(DirectoryNotSharedError)
    assert "worker 1" in text
    assert "ckpt-3.index" in text


def test_a_worker_that_dies_is_named_on_all_others(run):
    def restore(worker, name):
        if worker == 2:
            group.job.kill(2, "signal 9")
            raise SystemExit

    group = Group(run, run, run, restore=restore)
    group.go()
    for end in group.ends[:2]:
        assert isinstance(end, WorkerLostError)
        assert "worker 2 died (signal 9)" in str(end)


def test_a_worker_that_never_comes_is_named(run):
    group = Group(run, run, run, absent=(2,), deadline=0.3).go()
    for end in group.ends[:2]:
        assert isinstance(end, DeadlineExceededError)
        assert "worker 2" in str(end)


class Unreadable(LocalStorage):
    def list(self, directory):
        raise PermissionError(errno.EACCES, "Permission denied", directory)


def test_a_chief_that_cannot_read_the_directory_tells_all(run):
    group = Group(run, run, storages=[Unreadable(), LocalStorage()]).go()
    text = group.raised(RestoreError)
    assert text.startswith("worker 0 (")
    assert f"which checkpoints there are in {run}" in text
    assert "Permission denied" in text
    assert "then restore again" in text
    assert isinstance(group.ends[0].__cause__, PermissionError)
    assert group.restored == [[], []]


def test_a_failed_restore_leaves_the_lists_as_they_were(run):
    def restore(worker, name):
        raise ValueError("program")

    group = Group(run, run, restore=restore).go()
    assert [b.latest for b in group.books] == ["ckpt-3"] * 2
    assert [len(b.active) for b in group.books] == [3, 3]


def test_a_hiccup_of_the_storage_does_not_cost_the_newest_checkpoint(run):
    shaky = FaultyStorage(LocalStorage())
    shaky.add(Fault(fails(errno.EIO), Where("read", path="*data*"), "before", times=2))
    group = Group(run, run, storages=[FaultyStorage(LocalStorage()), shaky]).go()
    assert group.ends == ["ckpt-3"] * 2
    assert [b.active[-1].name for b in group.books] == ["ckpt-3"] * 2


@pytest.mark.parametrize("what", ["saved again", "deleted"])
def test_what_another_job_changes_meanwhile_is_not_damaged(run, what):
    """All look again, and take what is the newest now, instead of an older one."""
    other = lab.Chief(run, max_to_keep=9)

    def change(storage, operation):
        if what == "saved again":
            other.save("ckpt-3", 30)
        else:
            other.save("ckpt-4", 30)
            other.books.delete(["ckpt-3"])

    busy = FaultyStorage(LocalStorage())
    busy.add(Fault(change, Where("read", path="*ckpt-3.data*"), "before", times=1))
    group = Group(run, run, storages=[FaultyStorage(LocalStorage()), busy]).go()
    newest = "ckpt-3" if what == "saved again" else "ckpt-4"
    assert group.ends == [newest] * 2
    assert lab.number_of(run, newest) == 30
    assert group.books[0]._damaged == {}
