from __future__ import annotations

import errno
import threading

import pytest

from distckpt.storage.local import LocalStorage
from distckpt.storage.temporary import is_temporary
from distckpt.testing.faulty_storage import (
    AFTER,
    DURING,
    Fault,
    FaultyStorage,
    ProcessDied,
    Where,
    dies,
    fails,
    pauses,
)
from distckpt.testing.storage_contract import StorageContract


class TestFaultyStorage(StorageContract):
    """Without faults it is as good as the storage that it wraps."""

    @pytest.fixture
    def storage(self):
        return FaultyStorage(LocalStorage())

    @pytest.fixture
    def root(self, tmp_path):
        return str(tmp_path)


def storage_with(*faults, **options):
    return FaultyStorage(LocalStorage(), faults, **options)


def test_an_error_before_leaves_everything_as_it_was(tmp_path):
    storage = storage_with(Fault(fails(errno.ENOSPC), Where("write")))
    with pytest.raises(OSError, match="No space left") as caught:
        storage.write(f"{tmp_path}/a", b"1", durable=False)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == f"{tmp_path}/a"
    assert storage.list(str(tmp_path)) == []


def test_an_error_after_leaves_it_done(tmp_path):
    storage = storage_with(Fault(fails(errno.EIO), Where("write"), AFTER))
    with pytest.raises(OSError, match="Input/output"):
        storage.write(f"{tmp_path}/a", b"1", durable=False)
    assert storage.read(f"{tmp_path}/a") == b"1"


def test_a_fault_strikes_as_often_as_it_says(tmp_path):
    storage = storage_with(Fault(fails(errno.EIO), Where("exists"), times=2))
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            storage.exists(str(tmp_path))
    assert storage.exists(str(tmp_path))


@pytest.mark.parametrize(
    ("where", "number"),
    [
        (Where(), 1),
        (Where(writing=2), 3),
        (Where("rename"), 4),
        (Where(path="*/b"), 3),
        (Where("rename", "*/c"), 4),
        (Where("remove", writing=3), None),
    ],
)
def test_which_operation_is_struck(tmp_path, where, number):
    storage = storage_with(Fault(fails(errno.EIO), where))
    steps = [
        lambda: storage.write(f"{tmp_path}/a", b"", durable=False),
        lambda: storage.list(str(tmp_path)),
        lambda: storage.write(f"{tmp_path}/b", b"", durable=False),
        lambda: storage.rename(f"{tmp_path}/b", f"{tmp_path}/c"),
    ]
    for position, step in enumerate(steps, 1):
        if position == number:
            with pytest.raises(OSError, match="Input/output"):
                step()
            return
        step()
    assert number is None


def test_the_dead_do_nothing_more(tmp_path):
    deaths = []
    storage = storage_with(Fault(dies(), Where("write")), on_death=lambda: deaths.append(1))
    with pytest.raises(ProcessDied):
        storage.write(f"{tmp_path}/a", b"", durable=False)
    assert storage.dead
    assert deaths == [1]
    for step in (
        lambda: storage.exists(str(tmp_path)),
        lambda: storage.remove_tree(str(tmp_path)),
        lambda: storage.flush(str(tmp_path)),
    ):
        with pytest.raises(ProcessDied, match="after death"):
            step()
    assert tmp_path.exists()
    assert not issubclass(ProcessDied, Exception)


def test_half_a_write_is_half_a_temporary_file(tmp_path):
    storage = storage_with(Fault(dies(), Where("create"), DURING))
    with pytest.raises(ProcessDied):
        storage.create(f"{tmp_path}/a", b"12345678", durable=False)
    (left,) = tmp_path.iterdir()
    assert is_temporary(left.name)
    assert left.read_bytes() == b"1234"


def test_half_a_removal_leaves_some(tmp_path):
    for name in ("a", "b", "d/x"):
        (tmp_path / "t" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "t" / name).write_text("x")
    storage = storage_with(Fault(dies(), Where("remove_tree"), DURING))
    with pytest.raises(ProcessDied):
        storage.remove_tree(f"{tmp_path}/t")
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["b"]


def test_a_paused_operation_goes_on_when_it_is_told(tmp_path):
    reached, go_on = threading.Event(), threading.Event()
    storage = storage_with(Fault(pauses(reached, go_on), Where("write")))
    write = threading.Thread(
        target=storage.write, args=(f"{tmp_path}/a", b"1"), kwargs={"durable": False}
    )
    write.start()
    assert reached.wait(10.0)
    assert storage.list(str(tmp_path)) == [], "others may go on in the meantime"
    go_on.set()
    write.join(10.0)
    assert storage.read(f"{tmp_path}/a") == b"1"


def test_nobody_is_paused_for_ever(tmp_path):
    storage = storage_with(Fault(pauses(threading.Event(), threading.Event(), 0.01), Where("read")))
    with pytest.raises(TimeoutError, match="was never resumed"):
        storage.read(f"{tmp_path}/a")


def test_the_story_is_what_was_changed_in_order(tmp_path):
    storage = storage_with()
    folder = f"{tmp_path}/d"
    storage.make_directory(folder)
    storage.exists(folder)
    storage.rename(folder, f"{folder}2")
    assert storage.writes == 2
    assert storage.story() == f"  1 make_directory {folder}\n  2 rename {folder} -> {folder}2"
    assert [o.kind for o in storage.operations] == ["make_directory", "exists", "rename"]


def test_faults_may_be_added_later(tmp_path):
    storage = storage_with()
    storage.write(f"{tmp_path}/a", b"", durable=False)
    storage.add(Fault(fails(errno.EROFS), Where("write")))
    with pytest.raises(OSError, match="Read-only"):
        storage.write(f"{tmp_path}/a", b"", durable=False)
