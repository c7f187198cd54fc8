"""Several threads read the bytes in small pieces; the first damage is raised."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.core.tensorflow_format.index_reader import BundleEntry, read_index
from distckpt.errors import CheckpointDamagedError
from distckpt.restoring import verifier
from distckpt.restoring.verifier import CHUNK, GAP, SMALL, Verifier, runs, share
from distckpt.storage.local import LocalStorage

from ..kit import bundles, lab


class Watched(LocalStorage):
    """Counts reads of data files, by thread; `meet` is called before each of them."""

    def __init__(self, meet=lambda path: None):
        self.reads = []
        self.threads = set()
        self._meet = meet

    def read(self, path, offset=0, size=None):
        if ".data-" in path:
            self.reads.append((path[-14:-9], offset, size))
            self.threads.add(threading.current_thread())
            self._meet(path)
        return super().read(path, offset, size)


def save(directory, *sizes):
    """Saves one tensor for each size in bytes, in one data file, without a manifest."""
    arrays = [np.random.default_rng(n).integers(0, 99, s // 8) for n, s in enumerate(sizes)]
    tensors = [(f"t{n:04d}", a.shape, None, a) for n, a in enumerate(arrays)]
    index, data = bundles.bundle_files(tensors)
    (directory / "ckpt-1.data-00000-of-00001").write_bytes(data)
    (directory / "ckpt-1.index").write_bytes(index)
    return directory


@pytest.fixture
def run(tmp_path):
    """A directory with ckpt-1 of three data files."""
    lab.Chief(tmp_path / "run").save("ckpt-1", 1, 3)
    return tmp_path / "run"


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def complaint(directory, storage=None, threads=2, **which):
    """Returns the error that is raised about ckpt-1; no thread may be left."""
    before = threading.active_count()
    with pytest.raises(CheckpointDamagedError) as caught:
        Verifier(storage or LocalStorage(), str(directory), threads).verify("ckpt-1", **which)
    assert threading.active_count() == before
    return str(caught.value)


# --- What is checked


@pytest.mark.parametrize("threads", [None, 1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_workers_read_every_byte(run, threads, workers):
    storage = Watched()
    for worker in range(workers):
        Verifier(storage, str(run), threads).verify("ckpt-1", worker, workers)
    for number in range(3):
        read = set()
        for shard, offset, size in storage.reads:
            read |= set(range(offset, offset + size)) if int(shard) == number else set()
        size = (run / f"ckpt-1.data-{number:05d}-of-00003").stat().st_size
        assert size > 0
        assert read == set(range(size))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_each_changed_byte_is_noticed(tmp_path, threads):
    """At the ends and in the middle of tensors that are read alone, in pieces, or together."""
    sizes = (16, 24, CHUNK + 64, 8, SMALL + 8, 40)
    directory = save(tmp_path, *sizes)
    begin = 0
    for number, size in enumerate(sizes):
        for position in (begin, begin + size // 2, begin + size - 1):
            flip(directory / "ckpt-1.data-00000-of-00001", position)
            assert f"Tensor 't{number:04d}' is damaged" in complaint(directory, threads=threads)
            flip(directory / "ckpt-1.data-00000-of-00001", position)
        begin += size
    Verifier(LocalStorage(), str(directory), threads).verify("ckpt-1")


def test_without_data_no_data_is_read(run):
    storage = Watched()
    Verifier(storage, str(run)).verify("ckpt-1", data=False)
    assert storage.reads == []


# --- Errors


def test_the_text_names_the_file_the_tensor_and_the_place(tmp_path):
    path = save(tmp_path, 16, 24) / "ckpt-1.data-00000-of-00001"
    flip(path, 20)
    text = complaint(tmp_path)
    assert text.startswith(f"{path}: Tensor 't0001' is damaged in data file 0, bytes 16 to 40: ")
    assert "its checksum is 0x" in text


@pytest.mark.parametrize("size", [0, 1, 23])
def test_a_file_that_ends_too_early_is_named_with_its_end(tmp_path, size):
    directory = save(tmp_path, 16, 8)
    path = directory / "ckpt-1.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:size])
    assert f"the file ends at byte {size}" in complaint(directory)


def test_of_two_errors_the_first_by_file_is_raised_whichever_is_found_first(run):
    """The thread of the first file waits until the other thread has failed because of damage."""
    begun = threading.Event()

    def meet(path):
        if ".data-00000" not in path:
            begun.set()
            return
        assert begun.wait(30)
        for thread in storage.threads - {threading.current_thread()}:
            thread.join(30)

    flip(run / "ckpt-1.data-00000-of-00003", 5)
    flip(run / "ckpt-1.data-00002-of-00003", 5)
    storage = Watched(meet)
    assert ".data-00000-of-00003: " in complaint(run, storage)
    assert {shard for shard, _, _ in storage.reads} == {"00000", "00001", "00002"}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_of_two_errors_in_a_file_the_first_by_offset_is_raised(tmp_path, threads):
    directory = save(tmp_path, *[SMALL + 8] * 40)
    for number in (31, 7, 8, 39):
        flip(directory / "ckpt-1.data-00000-of-00001", number * (SMALL + 8))
    assert "'t0007'" in complaint(directory, threads=threads)


def test_a_file_that_cannot_be_read_is_damage(run):
    def meet(path):
        if ".data-00001" in path:
            raise PermissionError(13, "Permission denied", path)

    text = complaint(run, Watched(meet))
    assert text.startswith(f"ckpt-1 in {run} cannot be read: ")
    assert "Permission denied" in text


# --- How it is read


def test_two_read_at_the_same_time(tmp_path):
    both = threading.Barrier(2)
    storage = Watched(lambda path: both.wait(30))
    Verifier(storage, str(save(tmp_path, *[SMALL + 8] * 2)), 2).verify("ckpt-1")
    assert len(storage.threads) == 2


@pytest.mark.parametrize(("cpus", "threads"), [(None, 1), (1, 1), (3, 3), (64, 4)])
def test_there_is_a_thread_for_each_cpu_but_no_more_than_four(tmp_path, monkeypatch, cpus, threads):
    monkeypatch.setattr(verifier.os, "cpu_count", lambda: cpus)
    all_of_them = threading.Barrier(threads)
    storage = Watched(lambda path: all_of_them.wait(30))
    Verifier(storage, str(save(tmp_path, *[SMALL + 8] * 12))).verify("ckpt-1")
    assert len(storage.threads) == threads


def test_a_large_tensor_is_read_in_pieces(tmp_path):
    storage = Watched()
    Verifier(storage, str(save(tmp_path, 3 * CHUNK + 8)), 2).verify("ckpt-1")
    assert [size for _, _, size in storage.reads] == [CHUNK] * 3 + [8]


def test_small_neighbours_are_read_at_once(tmp_path):
    storage = Watched()
    Verifier(storage, str(save(tmp_path, *[800] * 100)), 2).verify("ckpt-1")
    assert storage.reads == [("00000", 0, 80000)]


def test_what_is_empty_is_not_read(tmp_path):
    storage = Watched()
    Verifier(storage, str(save(tmp_path, 0, 0)), 2).verify("ckpt-1")
    assert storage.reads == []


SIZES = st.sampled_from([0, 1, 1000, GAP, GAP + 1, SMALL, SMALL + 1, CHUNK, CHUNK + 1, 2**62])
ENTRIES = st.lists(
    st.builds(
        lambda key, shard, offset, size: BundleEntry(key, "int8", (), shard, offset, size, 0),
        st.text(max_size=3),
        st.integers(0, 2),
        st.integers(0, 2 * CHUNK) | st.just(2**62),
        SIZES,
    ),
    max_size=30,
)


@given(ENTRIES)
def test_runs_have_each_entry_once_in_order_and_none_is_large(entries):
    """However an index lies about sizes and offsets."""
    found = runs(entries)
    flat = [entry for run in found for entry in run]
    assert sorted(flat) == sorted(entries)
    assert [(e.shard, e.offset) for e in flat] == sorted((e.shard, e.offset) for e in entries)
    for run in found:
        ends = [e.offset + e.size for e in run]
        assert len({e.shard for e in run}) == 1
        assert len(run) == 1 or max(ends) - run[0].offset <= CHUNK
        for number, entry in enumerate(run[1:], start=1):
            assert entry.size <= SMALL
            assert entry.offset - max(ends[:number]) <= GAP


def test_every_entry_is_in_one_share_and_bytes_are_balanced(run):
    index = read_index((run / "ckpt-1.index").read_bytes())
    for workers in (1, 2, 3, 7):
        shares = [share(index.stored, worker, workers) for worker in range(workers)]
        assert sorted(e for s in shares for e in s) == sorted(index.stored)
    loads = [sum(e.size for e in share(index.stored, worker, 3)) for worker in range(3)]
    assert max(loads) < 1.1 * min(loads)
