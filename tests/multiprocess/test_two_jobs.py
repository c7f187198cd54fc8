"""Two live jobs, each of two processes, and one directory that somebody clears, moves or copies."""

from __future__ import annotations

import itertools
import os
import shutil
from multiprocessing.connection import Listener
from pathlib import Path

import pytest

from ..unit.kit import warm

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(__file__).with_name("told.py"))
WORKERS = 2
SECONDS = 300.0


class Job:
    """A job whose workers do what they are told."""

    def __init__(self, folder):
        self.workers, self.links = [], []
        for index in range(WORKERS):
            address, log = str(folder / f"socket-{index}"), str(folder / f"log-{index}")
            with Listener(address, "AF_UNIX") as listener:
                listener._listener._socket.settimeout(SECONDS)
                command = [PROGRAM, index, WORKERS, address]
                self.workers.append(warm.start(command, os.environ, os.getcwd(), log, log))
                self.links.append(listener.accept())

    def do(self, *words):
        """Tells all workers the same; returns what all answer."""
        for link in self.links:
            link.send(list(map(str, words)))
        return self.heard()

    def heard(self):
        """Returns what all workers say."""
        assert all(link.poll(SECONDS) for link in self.links)
        first, *others = [link.recv() for link in self.links]
        assert all(other == first for other in others)
        return first

    def end(self):
        """Ends the processes."""
        for worker in self.workers:
            worker.kill()
            worker.join()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Two jobs, which begin anew for each test: to start TensorFlow takes long."""
    found = [Job(tmp_path_factory.mktemp("job")) for _ in range(2)]
    try:
        assert [job.heard() for job in found] == ["ready", "ready"]
        yield found
    finally:
        for job in found:
            job.end()


@pytest.fixture
def jobs(processes, tmp_path):
    """Returns a function which begins the first job, or the second, on the directory."""

    count = itertools.count()

    def begin(number):
        meeting = tmp_path / f"meeting-{next(count)}"
        processes[number].do("begin", tmp_path / "run", meeting)
        return processes[number]

    return begin


def on_disk(run):
    return sorted(path.stem for path in run.glob("*.index"))


def clear(run):
    shutil.rmtree(run)


def move_away(run):
    run.rename(run.with_name("old"))


@pytest.mark.parametrize("befall", [clear, move_away])
def test_a_job_in_the_place_of_a_cleared_directory_keeps_all_it_saves(tmp_path, jobs, befall):
    run = tmp_path / "run"
    old = jobs(0)
    assert old.do("save", 1) == "ckpt-1"
    befall(run)
    new = jobs(1)
    for number in (1, 2, 3):
        assert new.do("save", 10 + number) == f"ckpt-{number}"
        kind, text = old.do("save", 99)
        assert kind == "SupersededError"
        assert "no longer commits or deletes there" in text
    assert on_disk(run) == ["ckpt-2", "ckpt-3"]
    assert jobs(0).do("restore") == ["ckpt-3", 13.0]


@pytest.mark.parametrize("what", ["", ".distckpt"])
def test_a_job_goes_on_in_a_directory_that_was_cleared_after_one_word(tmp_path, jobs, what):
    run = tmp_path / "run"
    job = jobs(0)
    for number in (1, 2):
        assert job.do("save", number) == f"ckpt-{number}"
    shutil.rmtree(run / what)
    there = on_disk(run)
    kind, text = job.do("save", 3)
    assert kind == "DirectoryClearedError"
    assert "was cleared or moved while in use" in text
    assert on_disk(run) == there
    assert job.do("save", 4) == "ckpt-4"
    assert job.do("list") == on_disk(run)
    assert job.do("save", 5) == "ckpt-5"
    assert job.do("list") == on_disk(run) == ["ckpt-4", "ckpt-5"]
    assert jobs(1).do("restore") == ["ckpt-5", 5.0]


def test_a_backup_that_is_put_back_under_a_job_is_not_its_own(tmp_path, jobs):
    run = tmp_path / "run"
    first = jobs(0)
    first.do("save", 1)
    shutil.copytree(run, tmp_path / "backup")
    second = jobs(1)
    assert second.do("restore") == ["ckpt-1", 1.0]
    second.do("save", 2)
    shutil.rmtree(run)
    shutil.copytree(tmp_path / "backup", run)
    kind, text = second.do("save", 3)
    assert kind == "SupersededError"
    assert "or restored from a backup" in text
    assert on_disk(run) == ["ckpt-1"]


def test_a_job_held_up_before_its_first_save_leaves_what_a_newer_one_has_saved(tmp_path, jobs):
    run = tmp_path / "run"
    old = jobs(0)
    assert old.do("restore") == [None, 0.0]
    new = jobs(1)
    assert new.do("restore") == [None, 0.0]
    for number in (1, 2, 3):
        assert new.do("save", number) == f"ckpt-{number}"
        kind, text = old.do("save", 99)
        assert kind == "SupersededError"
        assert "since this job restored from it at" in text
    assert on_disk(run) == ["ckpt-2", "ckpt-3"]
    assert old.do("restore") == ["ckpt-3", 3.0]
    assert old.do("save", 4) == "ckpt-4"
