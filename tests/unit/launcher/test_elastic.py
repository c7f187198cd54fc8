"""Whose place is lost, and with how many it goes on."""

from __future__ import annotations

import pytest

from distckpt.launcher.elastic import lost
from distckpt.launcher.outcome import WorkerProcess
from distckpt.launcher.supervisor import Policy, Supervisor


def ended(index, returncode, at=1.0):
    return WorkerProcess(index, f"worker {index}", 100 + index, returncode, at, True)


@pytest.mark.parametrize(
    ("workers", "stopped_at", "names"),
    [
        ([ended(0, 0), ended(1, 0)], None, []),
        ([ended(0, 1), ended(1, -15, 3.0)], 2.0, ["worker 0"]),
        ([ended(0, -9), ended(1, -15, 3.0)], 2.0, ["worker 0"]),
        ([ended(0, -9), ended(1, -9, 1.5), ended(2, -9, 3.0)], 2.0, ["worker 0", "worker 1"]),
        ([ended(0, 69), ended(1, -15, 3.0)], 2.0, []),
        ([ended(0, 70), ended(1, -15, 3.0)], 2.0, []),
        ([ended(0, 69), ended(1, -9, 1.5)], 2.0, ["worker 1"]),
        ([ended(0, 75), ended(1, 75, 1.1)], 2.0, []),
        ([ended(0, 76)], None, []),
        ([ended(0, -9), ended(1, -9, 1.1)], None, ["worker 0", "worker 1"]),
    ],
)
def test_lost_is_who_failed_first_or_was_killed(workers, stopped_at, names):
    assert [worker.name for worker in lost(workers, stopped_at)] == names


def verdict(policy, workers):
    supervisor = Supervisor(policy)
    running = [WorkerProcess(w.index, w.name, w.pid) for w in workers]
    supervisor.observe([workers[0], *running[1:]], 2.0)
    actions = supervisor.observe(workers, 4.0)
    return supervisor.verdict, " ".join(getattr(action, "text", "") for action in actions)


def test_it_goes_on_with_those_that_are_left():
    found, text = verdict(
        Policy(max_restarts=1, least=2), [ended(0, -9), ended(1, -15, 3.0), ended(2, 1, 3.0)]
    )
    assert (found.restart, found.lost) == (True, 1)
    assert "restart 1 of 1 with 2 workers, because worker 0 (pid 100) was killed" in text


def test_with_too_few_it_ends():
    found, text = verdict(Policy(max_restarts=1, least=2), [ended(0, -9), ended(1, -15, 3.0)])
    assert (found.restart, found.exit_code) == (False, 69)
    assert "only 1 worker left, but 2 needed, because worker 0" in text


def test_who_was_preempted_comes_back():
    found, text = verdict(Policy(max_restarts=1, least=1), [ended(0, 75), ended(1, 75, 1.5)])
    assert (found.restart, found.lost) == (True, 0)
    assert "with" not in text.split("because")[0]


def test_without_elastic_all_start_again():
    found, _ = verdict(Policy(max_restarts=1), [ended(0, -9), ended(1, -9, 1.5)])
    assert (found.restart, found.lost) == (True, 0)
