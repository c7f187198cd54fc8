"""Which checkpoint is the newest, if TensorFlow's file lags behind or TensorFlow saves, too."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from distckpt.core import manifest_checksum
from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.testing.faulty_storage import Fault, FaultyStorage, ProcessDied, Where, dies, fails

from ..kit import lab
from .views import ALL, catalog, view


def commit(directory, *saves, pointed=False, max_to_keep=9):
    """Saves each (name, number); unless `pointed`, the chief dies before it writes `checkpoint`."""
    for name, number in saves:
        died = [] if pointed else [Fault(dies(), Where("rename", "*/checkpoint"))]
        storage = FaultyStorage(lab.FastStorage(), died)
        chief = lab.Chief(directory, storage, max_to_keep=max_to_keep)
        with contextlib.suppress(ProcessDied):
            chief.save(name, number)
        assert storage.dead is not pointed


def without(directory, name, *fields):
    """Removes fields of a manifest."""
    path = directory / f"{name}.manifest.json"
    body = json.loads(path.read_text())
    for field in ("checksum", *fields):
        del body[field]
    path.write_bytes(manifest_checksum.add(json.dumps(body).encode()))


OLD, NEW = [1e9, 1e9 + 1, 1e9 + 2], [2e9, 2e9 + 1, 2e9 + 2]


@pytest.fixture(params=[OLD, NEW, None], ids=["clock behind", "clock ahead", "no times"])
def plain(request):
    """Returns a function that saves each (name, number) like plain TensorFlow, with any clock."""

    def plain(directory, *saves):
        for name, number in saves:
            lab.plain_save(directory, name, number, listed=False)
        names = [name for name, _ in saves]
        if request.param:
            lab.point_to(directory, names, request.param[-len(names) :])
            return
        state = checkpoint_state.CheckpointState(names[-1], tuple(names))
        (directory / "checkpoint").write_bytes(checkpoint_state.render(state))

    return plain


def test_what_was_committed_after_plain_tensorflow_is_newer(tmp_path, plain):
    plain(tmp_path, ("ckpt-1", 1), ("ckpt-2", 2))
    commit(tmp_path, ("ckpt-3", 3), ("ckpt-1", 4))
    names, latest = view(tmp_path)
    assert latest == "ckpt-1"
    assert names[-2:] == ["ckpt-3", "ckpt-1"]
    assert lab.restorable(tmp_path) == ("ckpt-1", 4)


def test_what_plain_tensorflow_saved_after_a_commit_is_newer(run, plain):
    commit(run, ("ckpt-4", 4), ("ckpt-5", 5))
    plain(run, ("ckpt-0", 9))
    assert lab.restorable(run) == ("ckpt-0", 9)


def test_saved_again_and_again_over_what_the_file_names(tmp_path, plain):
    plain(tmp_path, ("ckpt-1", 1))
    commit(tmp_path, ("ckpt-2", 2), ("ckpt-1", 3), ("ckpt-3", 4), ("ckpt-1", 5))
    assert view(tmp_path) == (["ckpt-2", "ckpt-3", "ckpt-1"], "ckpt-1")


def test_a_listed_number_that_was_saved_again_hides_nothing(run):
    commit(run, ("ckpt-4", 4), ("ckpt-3", 5))
    assert view(run) == (["ckpt-1", "ckpt-2", "ckpt-4", "ckpt-3"], "ckpt-3")
    commit(run, ("ckpt-3", 6))
    assert view(run) == (["ckpt-1", "ckpt-2", "ckpt-4", "ckpt-3"], "ckpt-3")


def test_the_same_bytes_for_a_name_that_plain_tensorflow_saved_again(tmp_path):
    """`tf.train.Checkpoint.save` writes no times, and a new training uses the same names."""
    state = checkpoint_state.render(checkpoint_state.CheckpointState("ckpt-1", ("ckpt-1",)))
    lab.plain_save(tmp_path, "ckpt-1", 1, listed=False)
    (tmp_path / "checkpoint").write_bytes(state)
    commit(tmp_path, ("ckpt-2", 2), pointed=True)
    lab.plain_save(tmp_path, "ckpt-1", 3, listed=False)
    (tmp_path / "checkpoint").write_bytes(state)
    assert lab.restorable(tmp_path) == ("ckpt-1", 3)
    commit(tmp_path, ("ckpt-4", 4))
    assert view(tmp_path)[1] == "ckpt-4"


def test_a_clock_that_stands_still_writes_the_same_file_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    numbers = [1, 2, 1, 2]
    commit(tmp_path, *((f"ckpt-{n}", n) for n in numbers), pointed=True)
    assert view(tmp_path) == (["ckpt-1", "ckpt-2"], "ckpt-2")


@pytest.mark.parametrize("data", [None, b"{", b""], ids=["missing", "damaged", "empty"])
def test_what_was_committed_without_a_file_gives_way_to_plain_tensorflow(tmp_path, data):
    if data is not None:
        (tmp_path / "checkpoint").write_bytes(data)
    commit(tmp_path, ("ckpt-1", 1), ("ckpt-2", 2))
    assert view(tmp_path) == (["ckpt-1", "ckpt-2"], "ckpt-2")
    lab.plain_save(tmp_path, "ckpt-3", 3)
    assert view(tmp_path)[1] == "ckpt-3"
    commit(tmp_path, ("ckpt-4", 4))
    assert view(tmp_path)[1] == "ckpt-4"
    (tmp_path / "checkpoint").write_bytes(b"{")
    assert view(tmp_path)[1] == "ckpt-4"


def test_a_manifest_that_does_not_say_what_it_follows_gives_way_to_plain_tensorflow(run):
    lab.plain_save(run, "ckpt-0", 9)
    for name in ALL:
        without(run, name, "follows")
    assert lab.restorable(run) == ("ckpt-0", 9)
    assert catalog(run).candidates(time.time()) == ["ckpt-0", "ckpt-3", "ckpt-2", "ckpt-1"]


def test_managers_of_two_names_with_plain_tensorflow_in_between(run, plain):
    plain(run, ("best-1", 1))
    commit(run, ("ckpt-4", 4))
    commit(run, ("best-2", 5), pointed=True)
    assert view(run)[1] == "best-2"
    commit(run, ("ckpt-5", 6), ("best-2", 7))
    assert view(run)[1] == "best-2"
    assert lab.restorable(run) == ("best-2", 7)
    plain(run, ("ckpt-9", 9))
    assert lab.restorable(run) == ("ckpt-9", 9)


def test_a_commit_whose_file_could_not_be_written_is_no_stranger_to_the_next(tmp_path):
    lab.plain_save(tmp_path, "ckpt-1", 1)
    fault = Fault(fails(28), Where("rename", "*/checkpoint"), times=2)
    chief = lab.Chief(tmp_path, FaultyStorage(lab.FastStorage(), [fault]), max_to_keep=9)
    for number in (2, 3):
        chief.save(f"ckpt-{number}", number)
        assert view(tmp_path)[1] == f"ckpt-{number}"
    assert view(tmp_path) == (["ckpt-1", "ckpt-2", "ckpt-3"], "ckpt-3")
