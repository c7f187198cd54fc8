from __future__ import annotations

import errno
import os
import pathlib
import socket

import pytest

from distckpt.core import attempts
from distckpt.core.protocol import share_parts
from distckpt.core.protocol.messages import Opening
from distckpt.core.protocol.report_checks import unplanned
from distckpt.core.protocol.write_plan import make_plan
from distckpt.core.tensorflow_format.index_reader import read_index as read
from distckpt.core.tensorflow_format.index_writer import StoredTensor, WrittenIndex
from distckpt.errors import (
    CheckpointDamagedError,
    DirectoryNotSharedError,
    SaveFailedError,
    StorageFullError,
)
from distckpt.saving import shard_writer as writing
from distckpt.saving.shard_writer import ShardWriter
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails

from ..kit import bundles, lab

OPENING = Opening("00000001-000001-abc", "ckpt-1", "unused", "unused", "token")


class Bench:
    """An open save of three workers, in `directory`."""

    def __init__(self, directory, *faults):
        self.directory = str(directory)
        self.folder = directory / attempts.pending_name("ckpt-1", OPENING.attempt)
        self.folder.mkdir()
        (self.folder / "probe").write_text("token")
        self.storage = FaultyStorage(lab.FastStorage(), faults)
        self.state = bundles.PlainState(self.storage, bundles.values(1))
        self.plan = make_plan(self.state.entries, 3)

    def writer(self, worker=1, *, durable=True):
        return ShardWriter(self.storage, self.directory, worker, 3, durable=durable, threads=4)

    def write(self, worker=1, **options):
        share = self.plan.shares[worker]
        return self.writer(worker, **options).write(OPENING, self.state, share)


def test_the_report_says_what_was_planned_and_is_there(tmp_path):
    bench = Bench(tmp_path)
    for worker in range(3):
        report = bench.write(worker)
        assert unplanned(bench.plan, report) is None
        assert (report.worker, report.pid, report.host) == (
            worker,
            os.getpid(),
            socket.gethostname(),
        )
        sizes = {f.name: (bench.folder / f.name).stat().st_size for f in report.files}
        assert {f.name: f.size for f in report.files} == sizes
        assert report.bytes == sum(sizes.values())
        assert report.seconds >= 0.0


def test_all_that_was_written_is_flushed_and_the_folder_last(tmp_path):
    bench = Bench(tmp_path)
    bench.write()
    flushed = [
        (o.kind, os.path.basename(o.paths[0]))
        for o in bench.storage.operations
        if o.kind.startswith("flush")
    ]
    stem = "shard-00001-of-00003"
    assert flushed[-1] == ("flush_directory", bench.folder.name)
    assert sorted(flushed[:-1]) == [
        ("flush", f"{stem}.data-00000-of-00001"),
        ("flush", f"{stem}.index"),
    ]


def test_without_durability_nothing_is_flushed(tmp_path):
    bench = Bench(tmp_path)
    bench.write(durable=False)
    assert not [o for o in bench.storage.operations if o.kind.startswith("flush")]


def test_other_files_with_the_workers_name_are_reported_as_extras(tmp_path):
    bench = Bench(tmp_path)
    bench.state.held = False  # so it may have registered savers, which write files
    (bench.folder / "shard-00001-of-00003-table.txt").write_text("abc")
    (bench.folder / "shard-00002-of-00003-table.txt").write_text("of another")
    report = bench.write()
    assert [(f.name, f.size) for f in report.extras] == [("shard-00001-of-00003-table.txt", 3)]


def test_a_worker_with_nothing_to_write_reports_nothing(tmp_path):
    bench = Bench(tmp_path)
    report = bench.writer().write(OPENING, bench.state, ())
    assert (report.prefixes, report.files, report.pieces, report.bytes) == ((), (), (), 0)


@pytest.mark.parametrize("probe", [None, "another token", "\ufffd"])
def test_a_worker_that_does_not_see_the_chiefs_probe_writes_nothing(tmp_path, probe):
    bench = Bench(tmp_path)
    (bench.folder / "probe").unlink()
    if probe is not None:
        (bench.folder / "probe").write_text(probe)
    with pytest.raises(DirectoryNotSharedError, match=r"worker 1 .*not the same directory"):
        bench.write()
    assert bench.storage.writes == 0


def test_a_probe_that_cannot_be_decoded_is_not_the_chiefs(tmp_path):
    bench = Bench(tmp_path)
    (bench.folder / "probe").write_bytes(b"\xff\xfe")
    with pytest.raises(DirectoryNotSharedError):
        bench.write()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("kind", ["write", "flush"])
def test_no_space_left_is_said_plainly(tmp_path, code, kind):
    bench = Bench(tmp_path, Fault(fails(code), Where(kind, "*shard*")))
    with pytest.raises(StorageFullError, match=r"worker 1 \(.*no space left.*untouched"):
        bench.write()


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES])
def test_another_error_names_worker_host_and_cause(tmp_path, code):
    bench = Bench(tmp_path, Fault(fails(code), Where("write", "*shard*")))
    text = rf"worker 1 \({socket.gethostname()}\).*{os.strerror(code)}"
    with pytest.raises(SaveFailedError, match=text) as caught:
        bench.write()
    assert not isinstance(caught.value, StorageFullError)


class Knowing(bundles.PlainState):
    """Knows what index it has written."""

    def write(self, folder, stem, pieces):
        (prefix,) = super().write(folder, stem, pieces)
        content = (pathlib.Path(folder) / f"{prefix}.index").read_bytes()
        stored = [StoredTensor(e.key, e.spec, 1, e.shape, *e[4:7]) for e in read(content).stored]
        self.index = WrittenIndex(content, tuple(stored))
        return (prefix,)

    def take_index(self, prefix):
        return self.index


def test_an_index_is_not_decoded_if_the_file_has_what_was_written(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    plain = bench.write()
    bench.state = Knowing(bench.storage, bundles.values(1))
    monkeypatch.setattr(writing.index_reader, "read_index", None)
    knowing = bench.write()
    assert plain.pieces
    assert (knowing.pieces, knowing.files) == (plain.pieces, plain.files)


@pytest.mark.parametrize("state", [bundles.PlainState, Knowing])
def test_an_index_that_reads_back_damaged_is_noticed_before_the_commit(tmp_path, state):
    bench = Bench(tmp_path)

    class Lying(lab.FastStorage):
        def read(self, path, offset=0, size=None):
            data = super().read(path, offset, size)
            return data[:-1] if path.endswith(".index") else data

    writer = ShardWriter(Lying(), bench.directory, 1, 3, durable=True, threads=4)
    with pytest.raises(CheckpointDamagedError):
        writer.write(OPENING, state(bench.storage, bundles.values(1)), bench.plan.shares[1])


def test_an_index_that_reads_back_as_another_one_is_what_is_reported(tmp_path):
    bench = Bench(tmp_path)
    planned = bench.write(0)
    other = (bench.folder / f"{planned.prefixes[0]}.index").read_bytes()

    class Swapping(lab.FastStorage):
        def read(self, path, offset=0, size=None):
            return other if path.endswith(".index") else super().read(path, offset, size)

    writer = ShardWriter(Swapping(), bench.directory, 1, 3, durable=True, threads=4)
    state = Knowing(bench.storage, bundles.values(1))
    report = writer.write(OPENING, state, bench.plan.shares[1])
    assert report.pieces == planned.pieces
    assert unplanned(bench.plan, report) is not None


def test_discarding_removes_the_workers_own_files_only(tmp_path):
    bench = Bench(tmp_path)
    bench.write(1)
    bench.write(2)
    bench.writer(1).discard(OPENING)
    left = {p.name for p in bench.folder.iterdir()}
    assert left == {
        "probe",
        "shard-00002-of-00003.index",
        "shard-00002-of-00003.data-00000-of-00001",
    }


def test_discarding_never_fails(tmp_path):
    bench = Bench(tmp_path, Fault(fails(errno.EIO), Where("remove"), times=9))
    bench.write()
    bench.writer().discard(OPENING)
    bench.writer().discard(Opening("00000001-000002-abc", "gone", "", "", ""))


def test_a_worker_that_comes_when_the_save_is_over_does_not_wait(tmp_path, monkeypatch):
    """The next save may be waiting for it already."""
    monkeypatch.setattr(writing, "PROBE_PATIENCE", 3600.0)
    bench = Bench(tmp_path)
    (bench.folder / "probe").unlink()
    share = bench.plan.shares[1]
    with pytest.raises(SaveFailedError, match="worker 1 came to write when the chief had ended"):
        bench.writer().write(OPENING, bench.state, share, is_over=lambda: True)


def test_between_parts_a_worker_looks_whether_the_save_is_over(tmp_path, monkeypatch):
    """An error elsewhere does not wait for the slowest to write all of its share."""
    monkeypatch.setattr(share_parts, "LEAST", 1)
    bench = Bench(tmp_path)
    asked = []

    def is_over():
        asked.append(bench.storage.writes)
        return len(asked) > 1

    writer = ShardWriter(bench.storage, bench.directory, 0, 1, durable=True, threads=3)
    monkeypatch.setattr(writing, "run_all", lambda tasks, threads: [task() for task in tasks])
    with pytest.raises(SaveFailedError, match="worker 0 stopped writing: the save is over"):
        writer.write(OPENING, bench.state, make_plan(bench.state.entries, 1).shares[0], is_over)
    assert asked == [4, 8]  # after one part, after two: index and data, written and flushed
    assert bench.storage.writes == 8


class Told:
    """The progress that a writer reports."""

    def __init__(self):
        self.phases = []
        self.added = 0

    def enter(self, phase, total=0, measure=None):
        self.phases.append((phase, total))
        self.measure, self.added = measure, 0

    def add(self, size):
        self.added += size


def test_the_writer_says_how_much_is_written_and_then_how_much_is_flushed(tmp_path):
    bench, told = Bench(tmp_path), Told()
    measured = []
    share = bench.plan.shares[1]
    write = bench.state.write

    def measuring(folder, stem, pieces):
        measured.append(told.measure())
        prefixes = write(folder, stem, pieces)
        measured.append(told.measure())
        return prefixes

    bench.state.write = measuring
    report = bench.writer().write(OPENING, bench.state, share, progress=told)
    total = sum(piece.nbytes for piece in share)
    assert told.phases == [("writing", total), ("flushing", total)]
    assert measured[0] == 0
    assert measured[1] >= total  # and an index
    assert told.added == report.bytes == total
