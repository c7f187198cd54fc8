"""What the other workers hear of a save, whatever happens to one of them."""

from __future__ import annotations

import errno
import re
import threading
import time

import pytest

from distckpt.core.protocol.messages import outcome_from_json
from distckpt.errors import (
    CommitUnknownError,
    ConfigurationError,
    DeadlineExceededError,
    DistckptError,
    SaveFailedError,
    StateMismatchError,
    StorageFullError,
    WorkerLostError,
)
from distckpt.messaging.keys import Keys
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import AFTER, BEFORE, Fault, FaultyStorage, Where, fails

from ..kit import lab
from ..kit.bundles import PlainState


def interrupted(storage, operation):
    raise KeyboardInterrupt


def chief_with(directory, *faults, **options):
    return lab.Chief(directory, FaultyStorage(lab.FastStorage(), faults), **options)


def test_all_workers_get_the_same_outcome(tmp_path):
    chief = lab.Chief(tmp_path)
    outcome = chief.save("ckpt-1", 1, 3)
    assert outcome.failure is None
    assert outcome.name == "ckpt-1"
    assert [name for name, _ in outcome.active] == ["ckpt-1"]
    assert chief.workers_ends == [None, None]
    assert lab.number_of(tmp_path, "ckpt-1") == 1


def test_copies_are_compared_in_as_many_threads_as_parts_are_written(tmp_path, monkeypatch):
    lock, running, most = threading.Lock(), 0, 0

    def compute():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return 0

    monkeypatch.setattr(PlainState, "copies", lambda state: [compute] * 8)
    with pytest.raises(ConfigurationError):  # nobody else wrote anything to compare with
        lab.Chief(tmp_path, threads=1).save("ckpt-1", 1, 1)
    assert most == 1


def operations_of_a_save(directory, workers):
    chief = chief_with(directory)
    chief.save("ckpt-1", 1, workers)
    done = chief.storage.writes
    chief.save("ckpt-2", 2, workers)
    return done, chief.storage.writes - done


def test_a_chief_interrupted_anywhere_tells_the_others_the_truth(folder):
    """Control-C, at every operation: it may be caught, and the process goes on."""
    done, count = operations_of_a_save(folder / "calm", 2)
    for k in range(1, count + 1):
        for moment in (BEFORE, AFTER):
            directory = folder / f"{k}-{moment}"
            chief = chief_with(directory, Fault(interrupted, Where(writing=done + k), moment))
            chief.save("ckpt-1", 1, 2)
            with pytest.raises(KeyboardInterrupt):
                chief.save("ckpt-2", 2, 2)
            heard = chief.workers_ends[0]
            committed = lab.restorable(directory) == ("ckpt-2", 2)
            text = f"{moment} {chief.storage.operations[-1]}: {heard!r}"
            if heard is None:
                assert committed, text
            else:
                assert isinstance(heard, DistckptError), text
                assert "worker 0 was interrupted in save() of ckpt-2 (KeyboardI" in str(heard)
                assert isinstance(heard, CommitUnknownError) or not committed, text
            chief.save("ckpt-3", 3, 2)
            names = [kept.name for kept in chief.managed.active]
            assert names[-1] == "ckpt-3"
            assert lab.leftovers(directory, names) == ([], []), text


def test_a_worker_interrupted_while_writing_ends_the_save_for_all(tmp_path):
    chief = lab.Chief(tmp_path)
    chief.save("ckpt-1", 1, 3)
    storage = FaultyStorage(lab.FastStorage(), [Fault(interrupted, Where("write"))])
    with pytest.raises(SaveFailedError, match=r"worker 2 was interrupted .*KeyboardInterrupt"):
        chief.save("ckpt-2", 2, 3, others=[lab.FastStorage(), storage])
    assert isinstance(chief.workers_ends[0], SaveFailedError)
    assert isinstance(chief.workers_ends[1], KeyboardInterrupt)
    assert lab.restorable(tmp_path) == ("ckpt-1", 1)
    assert lab.leftovers(tmp_path, ["ckpt-1"]) == ([], [])


@pytest.mark.parametrize("worker", [0, 1, 2])
def test_a_full_disk_on_one_worker_is_the_same_error_on_all(tmp_path, worker):
    full = Fault(fails(errno.ENOSPC), Where("write", "*shard*"))
    storages = [FaultyStorage(lab.FastStorage(), [full] * (i == worker)) for i in range(3)]
    chief = lab.Chief(tmp_path, storages[0])
    with pytest.raises(StorageFullError) as caught:
        chief.save("ckpt-1", 1, 3, others=storages[1:])
    assert str(caught.value).startswith(f"worker {worker} (")
    ends = {(type(end), str(end)) for end in chief.workers_ends}
    assert ends == {(StorageFullError, str(caught.value))}
    chief.save("ckpt-1", 1, 3)
    assert lab.leftovers(tmp_path, ["ckpt-1"]) == ([], [])


def test_an_index_that_reads_back_damaged_is_a_failed_save(tmp_path):
    class Lying(lab.FastStorage):
        def read(self, path, offset=0, size=None):
            data = super().read(path, offset, size)
            return data[:-1] if "shard-00001" in path else data

    chief = lab.Chief(tmp_path)
    with pytest.raises(SaveFailedError, match="index file is damaged"):
        chief.save("ckpt-1", 1, 2, others=[Lying()])
    assert isinstance(chief.workers_ends[0], SaveFailedError)


def test_bytes_that_never_arrive_fail_the_save(tmp_path):
    """A data file that the chief sees shorter than the worker wrote it, as on a broken mount."""

    class Short(LocalStorage):
        def size(self, path):
            return super().size(path) - path.endswith("ckpt-1.data-00001-of-00002")

    chief = lab.Chief(tmp_path, Short())
    with pytest.raises(SaveFailedError, match="does not show the chief what the worker wrote"):
        chief.save("ckpt-1", 1, 2)
    assert lab.restorable(tmp_path) is None


def test_what_goes_wrong_after_the_commit_does_not_fail_the_save(tmp_path, monkeypatch, caplog):
    chief = lab.Chief(tmp_path)

    def broken(*args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(chief.managed, "record", broken)
    monkeypatch.setattr(chief.managed, "prune", broken)
    assert chief.save("ckpt-1", 1, 2).failure is None
    assert chief.workers_ends == [None]
    assert lab.restorable(tmp_path) == ("ckpt-1", 1)
    assert "ckpt-1 is committed, but" in caplog.text


def test_all_are_told_before_anything_is_deleted(tmp_path):
    chief = lab.Chief(tmp_path, max_to_keep=1)
    chief.save("ckpt-1", 1, 2)
    told = []
    delete = chief.managed.delete

    def look(names, after, listed):
        told.append(chief.job.coordinator(1).fetch([Keys("lab", "save", 0).outcome], 0))
        return delete(names, after, listed)

    chief.managed.delete = look
    chief.save("ckpt-2", 2, 2)
    assert [outcome_from_json(message[1]).name for message in told] == ["ckpt-2"]


def names(active):
    return [name for name, _ in active]


def test_the_list_that_the_others_get_is_as_pruning_will_leave_it(tmp_path):
    chief = lab.Chief(tmp_path, max_to_keep=2)
    for number in (1, 2, 3):
        outcome = chief.save(f"ckpt-{number}", number, 2)
    assert names(outcome.active) == names(chief.managed.active) == ["ckpt-2", "ckpt-3"]
    assert outcome.last_preserved == chief.managed.last_preserved


def test_what_cannot_be_deleted_stays_on_the_chiefs_list_alone(tmp_path):
    chief = chief_with(tmp_path, max_to_keep=1)
    chief.save("ckpt-1", 1, 2)
    chief.storage.add(Fault(fails(errno.EIO), Where("rename", "*/ckpt-1.manifest.json")))
    outcome = chief.save("ckpt-2", 2, 2)
    assert names(outcome.active) == ["ckpt-2"]
    assert names(chief.managed.active) == ["ckpt-1", "ckpt-2"]
    assert names(chief.save("ckpt-3", 3, 2).active) == names(chief.managed.active) == ["ckpt-3"]


def test_while_tensorflows_file_cannot_be_written_nobody_drops_anything(tmp_path):
    chief = chief_with(tmp_path, max_to_keep=1)
    chief.save("ckpt-1", 1, 2)
    chief.storage.add(Fault(fails(errno.EIO), Where("rename", "*/checkpoint")))
    assert names(chief.save("ckpt-2", 2, 2).active) == ["ckpt-1", "ckpt-2"]
    assert names(chief.save("ckpt-3", 3, 2).active) == ["ckpt-3"]


def test_a_commit_that_cannot_be_announced_is_a_commit(tmp_path, monkeypatch, caplog):
    chief = lab.Chief(tmp_path, deadline=0.5)
    session = chief._session

    def mute(index, *args):
        made = session(index, *args)
        publish = made._coordinator.publish

        def refuse(key, value):
            if key.endswith("outcome"):
                raise WorkerLostError("the engine is gone")
            publish(key, value)

        if index == 0:
            monkeypatch.setattr(made._coordinator, "publish", refuse)
        return made

    monkeypatch.setattr(chief, "_session", mute)
    assert chief.save("ckpt-1", 1).failure is None
    assert "hear of the outcome at the next call" in caplog.text


def lazily(seconds):
    """An effect for `FaultyStorage`: the operation takes that long."""
    return lambda storage, operation: time.sleep(seconds)


def test_a_slow_disk_gets_more_time_and_a_warning(tmp_path, caplog):
    chief = lab.Chief(tmp_path, deadline=0.4, slow_factor=20.0)
    slow = FaultyStorage(lab.FastStorage(), [Fault(lazily(1.0), Where("flush", "*shard*.data*"))])
    assert chief.save("ckpt-1", 1, 2, others=[slow]).failure is None
    assert chief.workers_ends == [None]
    said = r"takes longer than 0.4 s: worker 1 \(\S+, pid \d+\) is slow: flushing"
    assert re.search(said, caplog.text)
    assert lab.number_of(tmp_path, "ckpt-1") == 1


def test_the_chiefs_own_slow_disk_gets_more_time_from_the_others(tmp_path):
    twice = Fault(lazily(3.5), Where("flush", "*shard-00000*"), times=2)  # its data, its index
    slow = FaultyStorage(lab.FastStorage(), [twice])
    chief = lab.Chief(tmp_path, slow, deadline=0.4, slow_factor=30.0)
    # Without more time, the worker would wait for 0.4 s and 5 s of grace.
    assert chief.save("ckpt-1", 1, 2).failure is None
    assert chief.workers_ends == [None]


def test_without_more_time_a_slow_disk_fails_the_save_and_is_named_with_its_phase(tmp_path):
    chief = lab.Chief(tmp_path, deadline=0.4)
    slow = FaultyStorage(lab.FastStorage(), [Fault(lazily(1.5), Where("flush", "*shard*.data*"))])
    with pytest.raises(DeadlineExceededError) as caught:
        chief.save("ckpt-1", 1, 3, others=[slow])
    text = str(caught.value)
    assert re.search(r"worker 1 \(\S+, pid \d+\) is slow: flushing, 0.0 of 0.0 MiB", text)
    assert "worker 0 and worker 2 have done their part" in text
    assert [str(end) for end in chief.workers_ends] == [text] * 2


def test_workers_with_different_values_of_the_same_shape_save_what_the_plan_gives_each(tmp_path):
    """Unless it is asked for, nobody compares values."""
    chief = lab.Chief(tmp_path)
    chief.save("ckpt-1", 1, 5)
    assert lab.number_of(tmp_path, "ckpt-1") == 1


def test_another_name_is_a_mismatch_on_all(tmp_path, monkeypatch):
    chief = lab.Chief(tmp_path)
    session = chief._session

    def confused(index, name, *args):
        return session(index, "ckpt-7" if index == 1 else name, *args)

    monkeypatch.setattr(chief, "_session", confused)
    with pytest.raises(StateMismatchError, match="worker 1 came to save 'ckpt-7'"):
        chief.save("ckpt-1", 1, 2)
    assert isinstance(chief.workers_ends[0], StateMismatchError)
    assert lab.restorable(tmp_path) is None
