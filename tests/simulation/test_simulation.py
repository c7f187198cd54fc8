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
from .bugs import BUGS, fits, with_bug
from .coverage import TRANSITIONS
from .program import POLICIES
from .program_run import ANOTHER_NUMBER, MISHAPS, POLICY
from .run import play
from .search import Summary, find, play_all

SERIES = 2
# Runs of one test, and how many such tests: of jobs, and of programs, which take longer. The first
# ones of each are for every day.
RUNS, PARTS, DAILY_PARTS = 5_000, 10, 2
PROGRAM_RUNS, PROGRAM_PARTS = 500, 8
NUMBERED_RUNS = 25
PROCESSES = 1 if "PYTEST_XDIST_WORKER" in os.environ else None
# One needs a state that cannot be read; one, a rendezvous that is seen too late for all patience
# with it; the others, a death just between two messages.
RARE = {
    ("ChiefSave", "AwaitReady", "Answered"),
    ("ChiefSave", "AnnounceRendezvous", "TimedOut"),
    ("ChiefSave", "AnnounceRendezvous", "Lost"),
    ("WorkerSave", "AnnounceRendezvous", "Lost"),
    ("WorkerSave", "AnnounceRendezvous", "TimedOut"),
    # The chief looks for these only between parts, and while its own folder cannot be seen.
    ("ChiefSave", "Write", "Answered"),
    ("ChiefSave", "Write", "Lost"),
}
long = pytest.mark.long
FOUND = sorted(Path(__file__).with_name("found").glob("*.json"))


def parts(count, daily):
    return [part if part < daily else pytest.param(part, marks=long) for part in range(count)]


@pytest.mark.parametrize("part", parts(PARTS, DAILY_PARTS))
def test_no_run_breaks_a_promise(part):
    total = Summary()
    for summary in play_all(SERIES, RUNS, PROCESSES, first=part * RUNS):
        total.merge(summary)
    assert total.broken[:5] == []
    assert total.runs == RUNS
    assert total.visited.keys() <= TRANSITIONS
    assert TRANSITIONS - total.visited.keys() <= RARE


@pytest.mark.parametrize("part", parts(PROGRAM_PARTS, 1))
def test_no_mishap_of_a_program_breaks_a_promise(part):
    total = Summary()
    for summary in play_all(f"p{SERIES}", PROGRAM_RUNS, PROCESSES, first=part * PROGRAM_RUNS):
        total.merge(summary)
    assert total.broken[:5] == []
    assert total.runs == PROGRAM_RUNS


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("numbers", ["step", "same"])
def test_no_mishap_breaks_a_promise_if_the_program_gives_numbers(numbers, counted):
    """A worker that hears of a checkpoint hears of the number that its program gave."""
    kinds = (*MISHAPS, ANOTHER_NUMBER)
    focus = {"program": True, "numbers": numbers, "counted": counted, "kinds": kinds}
    if not counted:
        focus |= {"retries": False, "in_step": True, "slow": False}
    broken = {seed: play(seed, focus=focus).violation for seed in range(NUMBERED_RUNS)}
    assert not any(broken.values()), {s: why for s, why in broken.items() if why}


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("policy", POLICIES[1:])
def test_no_mishap_breaks_a_promise_with_a_policy_that_fails_or_with_two_threads(policy, threads):
    focus = {"program": True, "policy": policy, "threads": threads, "kinds": (*MISHAPS, POLICY)}
    broken = {seed: play(seed, focus=focus).violation for seed in range(NUMBERED_RUNS)}
    assert not any(broken.values()), {s: why for s, why in broken.items() if why}


@long
@pytest.mark.timeout(1800)
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
    assert fits(broken or "")


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
    with with_bug("term_is_ignored"):
        found = find("term_is_ignored", base=1, limit=20_000)
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

    def test_a_file_has_the_time_at_which_it_was_written_or_none(self, storage, root):
        """A simulated disk has no clock: each file that is written has a number of its own."""
        storage.write(f"{root}/a", b"x", durable=False)
        before = storage.modified(f"{root}/a")
        storage.write(f"{root}/a", b"x", durable=False)
        assert storage.modified(f"{root}/a") > before
