"""The promises hold in every simulated run, and the simulation notices when they do not."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import pytest

from distckpt.testing.storage_contract import StorageContract

from . import disk, shrink, storage
from .bugs import BUGS, with_bug
from .coverage import TRANSITIONS
from .run import play
from .search import Summary, find, play_all

SERIES, PARTS = 2, 20
RUNS = int(os.environ.get("DISTCKPT_SIMULATED_RUNS", "100000"))
# One needs a state that cannot be read; one, a roll that is seen too late for all patience with
# it; the others, a death just between two messages.
RARE = {
    ("ChiefSave", "AwaitReady", "Answered"),
    ("ChiefSave", "AnnounceRoll", "TimedOut"),
    ("ChiefSave", "AnnounceRoll", "Lost"),
    ("WorkerSave", "AnnounceRoll", "Lost"),
    ("WorkerSave", "AnnounceRoll", "TimedOut"),
    # The chief looks for these only between parts, and while its own folder cannot be seen.
    ("ChiefSave", "Write", "Answered"),
    ("ChiefSave", "Write", "Lost"),
}
FOUND = sorted(Path(__file__).with_name("found").glob("*.json"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_run_breaks_a_promise(part):
    total, runs = Summary(), RUNS // PARTS
    for summary in play_all(SERIES, runs, first=part * runs):
        total.merge(summary)
    assert total.broken[:5] == []
    assert total.runs == runs
    assert total.visited.keys() <= TRANSITIONS
    if runs >= 5_000:
        assert TRANSITIONS - total.visited.keys() <= RARE


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found(bug):
    """Of 100,000 runs, some show it; most bugs show in the first dozen."""
    assert find(bug, base=1, limit=100_000) is not None


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_once_broken_is_not(path):
    found = json.loads(path.read_text())
    assert play(given=found["choices"], focus=found["focus"]).violation is None
    with with_bug(found["bug"]):  # else it would show nothing any more
        broken = play(given=found["choices"], focus=found["focus"]).violation
    assert bool(broken) == bool(found["bug"])


def test_every_bug_is_put_in_and_taken_out():
    for bug in BUGS:
        changes = BUGS[bug]()
        before = [getattr(owner, attribute) for owner, attribute, _ in changes]
        with with_bug(bug):
            now = [getattr(owner, attribute) for owner, attribute, _ in changes]
            assert all(a is not b for a, b in zip(before, now, strict=True))
        after = [getattr(owner, attribute) for owner, attribute, _ in changes]
        assert all(a is b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("seed", ["1.5", "2.9", "3.77"])
def test_a_seed_and_its_choices_give_the_same_run(seed):
    first, second = play(seed, tell=True), play(seed, tell=True)
    given = play(given=first.choices, tell=True)
    assert first.story == second.story == given.story
    assert first.violation is None


def test_a_run_without_choices_is_tame():
    result = play(given=(), tell=True)
    assert result.violation is None
    assert not result.struck
    assert result.commits == 2  # the job's, and the last one's


def test_a_broken_run_is_made_short_and_tells_why():
    with with_bug("epoch_is_ignored"):
        found = find("epoch_is_ignored", base=1, limit=20_000)
        assert found is not None
        long = play(found[0]).choices
        short = shrink.shrink(long, lambda given: play(given=given).violation is not None)
        story = "\n".join(play(given=short, tell=True).story)
    assert len(short) < len(long)
    assert re.search("BROKEN", story)
    assert re.search("STRUCK by", story)


# --- The simulated disk is a storage ------------------------------------------------------------


class Still:
    """A world in which nothing happens by itself, for many threads."""

    now = 0.0

    def event(self, *words):
        pass

    tell = linger = event


class OneAtATime(storage.SimulatedStorage):
    """In a run, no two processes are in the middle of the same operation."""

    lock = threading.Lock()

    def create(self, path, data, *, durable):
        with self.lock:
            super().create(path, data, durable=durable)


class TestTheSimulatedDisk(StorageContract):
    @pytest.fixture
    def storage(self):
        return OneAtATime(Still(), disk.Disk(), "test", storage.Faults())

    @pytest.fixture
    def root(self, storage):
        storage.make_directory("/root")
        return "/root"
