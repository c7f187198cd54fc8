"""Readers beside a job: they see what is committed, hold what they read, and disturb nobody."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf

import distckpt
from distckpt.directory import pinning
from distckpt.directory.holds import Holds
from distckpt.errors import CheckpointDamagedError, ConfigurationError
from distckpt.storage.gfile import GFileStorage
from distckpt.storage.local import LocalStorage


class Job:
    """A job of one process that keeps one checkpoint."""

    def __init__(self, directory, max_to_keep=1):
        self.directory = str(directory)
        self.value = tf.Variable(0.0)
        self.table = tf.Variable(tf.reshape(tf.range(40.0), (10, 4)))
        self.manager = distckpt.CheckpointManager(
            tf.train.Checkpoint(value=self.value, table=self.table),
            directory,
            max_to_keep,
            options=distckpt.ManagerOptions(durable=False),
        )

    def save(self, number=None, **metrics):
        self.value.assign_add(1.0)
        return self.manager.save(number, metrics=metrics or None)

    def names(self):
        return sorted(p.name[:-6] for p in pathlib.Path(self.directory).glob("*.index"))


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path / "run")


def leases(directory):
    return Holds(LocalStorage(), str(directory)).held()


def iterate(job, **options):
    options = {"timeout": 0.3, "poll_secs": 0.05, **options}
    return distckpt.checkpoints_iterator(job.directory, **options)


# --- Reader


def test_tensors_are_read_without_the_model(job):
    job.save(loss=0.5)
    with distckpt.Reader(job.directory) as reader:
        assert reader.latest() == reader.open() == job.manager.latest_checkpoint
        assert (reader.step, reader.metrics) == (1, {"loss": 0.5})
        assert {"value", "table"} <= set(reader.keys())
        assert (reader.shape("table"), reader.dtype("table")) == ((10, 4), "float32")
        assert reader.read("value") == 1.0
        assert reader.read("table", rows=(2, 3)).tolist() == [[8.0, 9.0, 10.0, 11.0]]
        with pytest.raises(ConfigurationError, match="Did you mean table"):
            reader.read("tabel")


def test_what_is_open_is_not_deleted_until_it_is_closed(job):
    first = job.save()
    with distckpt.Reader(job.directory) as reader:
        reader.open()
        assert set(leases(job.directory)) == {"ckpt-1"}
        job.save()
        job.save()
        assert job.names() == ["ckpt-1", "ckpt-3"]
        assert reader.read("value") == 1.0
        assert reader.open() == os.path.join(job.directory, "ckpt-3")
        job.save()
        assert job.names() == ["ckpt-3", "ckpt-4"]
        assert reader.open("ckpt-4") == reader.latest() != first
    assert leases(job.directory) == {}
    job.save()
    assert job.names() == ["ckpt-5"]


def test_without_a_lease_nothing_is_written(job):
    job.save()
    before = sorted(str(p) for p in pathlib.Path(job.directory).rglob("*"))
    with distckpt.Reader(job.directory, lease_seconds=None) as reader:
        reader.open()
        assert sorted(str(p) for p in pathlib.Path(job.directory).rglob("*")) == before


def test_where_no_lease_can_be_written_it_reads_all_the_same(job, caplog):
    job.save()
    folder = pathlib.Path(job.directory) / ".distckpt" / "holds"
    folder.rmdir()
    folder.write_text("in the way")
    with distckpt.Reader(job.directory) as reader:
        reader.open()
        assert reader.read("value") == 1.0
    assert "No lease can be written" in caplog.text


def test_a_lease_is_renewed_while_the_reader_lives(job):
    job.save()
    with distckpt.Reader(job.directory, lease_seconds=0.4) as reader:
        reader.open()
        for _ in range(4):
            time.sleep(0.2)
            assert set(leases(job.directory)) == {"ckpt-1"}


def test_the_lease_of_a_dead_reader_runs_out(job):
    job.save()
    program = (
        "import sys, time, distckpt\n"
        f"reader = distckpt.Reader({job.directory!r}, lease_seconds=2.0)\n"
        "reader.open(); print('open', flush=True); time.sleep(60)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        process.send_signal(signal.SIGKILL)
    assert set(leases(job.directory)) == {"ckpt-1"}
    job.save()
    assert job.names() == ["ckpt-1", "ckpt-2"]
    time.sleep(2.1)
    job.save()
    assert job.names() == ["ckpt-3"]


def test_bad_input(tmp_path, job):
    with distckpt.Reader(tmp_path / "nowhere") as reader:
        assert reader.latest() is None
        with pytest.raises(ConfigurationError, match="There is no checkpoint in"):
            reader.open()
        with pytest.raises(ConfigurationError, match="No checkpoint is open"):
            reader.keys()
    with pytest.raises(ConfigurationError, match="lease_seconds must be positive"):
        distckpt.Reader(tmp_path, lease_seconds=0)
    job.save()
    with distckpt.Reader(job.directory) as reader:
        with pytest.raises(ConfigurationError, match="There is no checkpoint 'ckpt-9'"):
            reader.open("ckpt-9")
        path = pathlib.Path(job.directory) / "ckpt-1.index"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CheckpointDamagedError):
            reader.open("ckpt-1")


def test_a_directory_in_another_file_system():
    directory = "ram://reader/run"
    job = Job(directory)
    job.save()
    with distckpt.Reader(directory) as reader:
        reader.open()
        assert reader.read("value") == 1.0
        assert set(Holds(GFileStorage(), directory).held()) == {"ckpt-1"}
        job.save()
        assert reader.read("table", rows=(0, 1)).tolist() == [[0.0, 1.0, 2.0, 3.0]]


# --- checkpoints_iterator


def test_the_arguments_are_those_of_tensorflow():
    import inspect

    ours = inspect.signature(distckpt.checkpoints_iterator).parameters
    theirs = inspect.signature(tf.train.checkpoints_iterator).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert [ours[name].default for name in theirs] == [p.default for p in theirs.values()]


def test_each_new_one_is_yielded_and_held_while_it_is_looked_at(job):
    found = []
    job.save()
    for path in iterate(job):
        found.append(os.path.basename(path))
        assert set(leases(job.directory)) == {found[-1]}
        if len(found) < 4:
            job.save()
            assert os.path.exists(path + ".index")
    assert found == ["ckpt-1", "ckpt-2", "ckpt-3", "ckpt-4"]
    assert leases(job.directory) == {}


def test_what_came_in_between_is_passed_over_or_not(tmp_path):
    job = Job(tmp_path / "run", max_to_keep=9)
    for _ in range(3):
        job.save()
    assert [os.path.basename(p) for p in iterate(job)] == ["ckpt-3"]
    assert [os.path.basename(p) for p in iterate(job, every=True)] == ["ckpt-1", "ckpt-2", "ckpt-3"]


def test_a_number_that_is_saved_again_is_new(job):
    found = []
    job.save(7)
    for path in iterate(job):
        found.append(path)
        if len(found) == 1:
            job.save(7)
    assert [os.path.basename(p) for p in found] == ["ckpt-7", "ckpt-7"]


def test_it_waits_for_the_first_and_ends_with_the_timeout(tmp_path):
    job = Job(tmp_path / "later")
    timer = threading.Timer(0.3, job.save)
    timer.start()
    assert len(list(iterate(job, timeout=3.0, min_interval_secs=0))) == 1
    timer.join()
    asked = []
    empty = distckpt.checkpoints_iterator(
        tmp_path / "nowhere", timeout=0.05, timeout_fn=lambda: asked.append(1) or len(asked) == 3
    )
    assert list(empty) == []
    assert len(asked) == 3


def test_the_least_interval_is_kept(job):
    job.save()
    times = []
    for _ in iterate(job, min_interval_secs=0.5):
        times.append(time.monotonic())
        if len(times) == 1:
            job.save()
    assert len(times) == 2
    assert times[1] - times[0] >= 0.5


def test_what_is_deleted_meanwhile_is_passed_over(job, monkeypatch):
    """The reader has chosen it just before the job deletes it: then there is a newer one."""
    monkeypatch.setattr(pinning, "PATIENCE", 0.05)
    original = pinning._place
    struck = []

    def late(storage, directory, hold, path):
        if not struck:
            struck.append(hold.name)
            job.save()
        return original(storage, directory, hold, path)

    monkeypatch.setattr(pinning, "_place", late)
    job.save()
    assert [os.path.basename(p) for p in iterate(job)] == ["ckpt-2"]
    assert struck == ["ckpt-1"]


def test_leaving_the_loop_lets_go(job):
    job.save()
    for _ in iterate(job):
        break
    assert leases(job.directory) == {}


def test_plain_tensorflow_checkpoints_are_seen_too(tmp_path):
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path / "plain"), 3
    )
    manager.save()
    found = list(distckpt.checkpoints_iterator(tmp_path / "plain", timeout=0.1))
    assert found == [str(tmp_path / "plain" / "ckpt-1")]


def test_poll_secs_must_be_positive(job):
    with pytest.raises(ConfigurationError, match="poll_secs must be positive"):
        next(distckpt.checkpoints_iterator(job.directory, poll_secs=0))
