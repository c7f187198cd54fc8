from __future__ import annotations

import dataclasses
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.launcher.outcome import WorkerProcess
from distckpt.launcher.supervisor import (
    KILL_DEADLINE,
    Action,
    Kill,
    Phase,
    Policy,
    Say,
    Send,
    Supervisor,
    Verdict,
)

RUNNING = WorkerProcess(0, "worker 0", 100)
POLICY = Policy(max_restarts=2, grace=30.0, stop_grace=5.0)


def running(index: int) -> WorkerProcess:
    return WorkerProcess(index, f"worker {index}", 100 + index)


def ended(index: int, returncode: int, at: float = 1.0, gone: bool = True) -> WorkerProcess:
    return dataclasses.replace(running(index), returncode=returncode, ended_at=at, gone=gone)


def deeds(actions: list[Action]) -> list[Action]:
    return [action for action in actions if not isinstance(action, Say)]


def words(actions: list[Action]) -> str:
    return " ".join(action.text for action in actions if isinstance(action, Say))


def test_workers_that_run_are_left_alone() -> None:
    supervisor = Supervisor(POLICY)
    assert supervisor.observe([running(0), running(1)], 0.0) == []
    assert supervisor.tick(1e9) == []
    assert supervisor.verdict is None


def test_a_worker_that_finishes_well_does_not_disturb_the_others() -> None:
    supervisor = Supervisor(POLICY)
    assert supervisor.observe([ended(0, 0), running(1)], 0.0) == []
    assert supervisor.phase is Phase.RUNNING


def test_all_finished_well_is_exit_code_0() -> None:
    supervisor = Supervisor(POLICY)
    assert supervisor.observe([ended(0, 0), ended(1, 0)], 0.0) == []
    assert supervisor.verdict == Verdict(restart=False, exit_code=0)


def test_a_worker_is_not_finished_before_what_it_started_is_gone() -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([ended(0, 0, gone=False)], 0.0)
    assert supervisor.verdict is None


def test_a_failure_stops_the_others_and_says_who_and_how() -> None:
    actions = Supervisor(POLICY).observe([running(0), ended(1, -9)], 0.0)
    assert deeds(actions) == [Send(signal.SIGTERM)]
    assert "worker 1 (pid 101) was killed by SIGKILL" in words(actions)


def test_others_are_killed_when_the_stop_grace_is_over_and_not_before() -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([running(0), ended(1, 1)], 10.0)
    assert supervisor.deadline == 15.0
    assert supervisor.tick(14.9) == []
    actions = supervisor.tick(15.0)
    assert deeds(actions) == [Kill()]
    assert "not ended in time: worker 0" in words(actions)


def test_after_a_failure_the_cluster_starts_again_once_all_are_gone() -> None:
    supervisor = Supervisor(POLICY, restart=1)
    supervisor.observe([running(0), ended(1, 3)], 0.0)
    actions = supervisor.observe([ended(0, -15, at=2.0), ended(1, 3)], 0.1)
    assert supervisor.verdict == Verdict(restart=True, exit_code=3)
    assert "restart 2 of 2, because worker 1 (pid 101) exited with code 3" in words(actions)


@pytest.mark.parametrize(("returncode", "expected"), [(3, 3), (-9, 137)])
def test_without_restarts_left_the_first_failure_decides(returncode: int, expected: int) -> None:
    supervisor = Supervisor(POLICY, restart=2)
    workers = [ended(0, 1, at=2.0), ended(1, returncode, at=1.0), ended(2, 0, at=0.5)]
    actions = supervisor.observe(workers, 0.0)
    assert supervisor.verdict == Verdict(restart=False, exit_code=expected)
    assert "all 2 restarts are used up" in words(actions)


def test_the_first_failure_decides_even_if_it_was_seen_second() -> None:
    supervisor = Supervisor(Policy())
    supervisor.observe([ended(0, 1, at=2.0), running(1)], 0.0)
    supervisor.observe([ended(0, 1, at=2.0), ended(1, 42, at=1.9)], 0.0)
    assert supervisor.verdict == Verdict(restart=False, exit_code=42)


def test_the_log_of_the_culprit_is_pointed_to() -> None:
    culprit = dataclasses.replace(ended(0, 1), log="logs/worker-0.restart-0.log")
    assert "logs/worker-0.restart-0.log" in words(Supervisor(Policy()).observe([culprit], 0.0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_decides_the_exit_code(number: int) -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([running(0)], 0.0)
    assert deeds(supervisor.signalled(number, 100.0)) == [Send(number)]
    assert supervisor.deadline == 130.0
    supervisor.observe([ended(0, 0)], 101.0)
    assert supervisor.verdict == Verdict(False, 128 + number, interrupted=True)


def test_failures_after_a_signal_cause_no_restart() -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([running(0), running(1)], 0.0)
    supervisor.signalled(signal.SIGINT, 0.0)
    assert supervisor.observe([ended(0, 1), running(1)], 0.1) == []
    assert supervisor.observe([ended(0, 1), ended(1, 1)], 0.1) == []
    assert supervisor.verdict == Verdict(False, 130, interrupted=True)


def test_a_signal_while_stopping_after_a_failure_cancels_the_restart() -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([running(0), ended(1, 1)], 0.0)
    actions = supervisor.signalled(signal.SIGTERM, 1.0)
    assert deeds(actions) == []
    assert "no restart" in words(actions)
    assert supervisor.deadline == 5.0, "the deadline must not move"
    supervisor.observe([ended(0, -15), ended(1, 1)], 2.0)
    assert supervisor.verdict == Verdict(False, 143, interrupted=True)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_sigint_after_a_signal_kills_at_once(first: int) -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([running(0)], 0.0)
    supervisor.signalled(first, 0.0)
    assert deeds(supervisor.signalled(signal.SIGINT, 0.1)) == [Kill()]
    supervisor.observe([ended(0, -9)], 0.2)
    assert supervisor.verdict == Verdict(False, 128 + first, interrupted=True)


def test_repeated_sigterm_changes_nothing() -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([running(0)], 0.0)
    supervisor.signalled(signal.SIGTERM, 0.0)
    assert supervisor.signalled(signal.SIGTERM, 10.0) == []
    assert supervisor.deadline == 30.0


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_cannot_be_killed_is_given_up_without_a_restart(interrupted: bool) -> None:
    supervisor = Supervisor(POLICY)
    workers = [running(0), ended(1, 7)]
    supervisor.observe(workers, 0.0)
    if interrupted:
        supervisor.signalled(signal.SIGTERM, 0.0)
    assert deeds(supervisor.tick(5.0)) == [Kill()]
    assert supervisor.tick(5.0 + KILL_DEADLINE - 0.1) == []
    actions = supervisor.tick(5.0 + KILL_DEADLINE)
    assert "cannot be killed: worker 0 (pid 100)" in words(actions)
    assert supervisor.verdict == Verdict(False, 143 if interrupted else 7, interrupted)


def test_after_the_verdict_nothing_happens_any_more() -> None:
    supervisor = Supervisor(POLICY)
    supervisor.observe([ended(0, 0)], 0.0)
    assert supervisor.observe([ended(0, 1)], 0.0) == []
    assert supervisor.signalled(signal.SIGINT, 0.0) == []
    assert supervisor.tick(1e9) == []
    assert supervisor.verdict == Verdict(restart=False, exit_code=0)


EVENTS = st.one_of(
    st.tuples(st.just("end"), st.integers(0, 2), st.sampled_from([0, 1, -9])),
    st.tuples(st.just("go"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("signal"), st.sampled_from([signal.SIGINT, signal.SIGTERM]), st.just(0)),
    st.tuples(st.just("time"), st.integers(0, 20), st.just(0)),
)


@given(st.lists(EVENTS, max_size=25), st.integers(0, 3))
def test_whatever_happens_it_comes_to_an_end_that_agrees_with_what_happened(
    events: list[tuple[str, int, int]], restart: int
) -> None:
    supervisor = Supervisor(Policy(max_restarts=2), restart)
    workers, now, signals = [running(index) for index in range(3)], 0.0, []
    supervisor.observe(workers, now)
    for kind, what, code in events:
        now += 0.1
        if kind == "end" and workers[what].returncode is None:
            workers[what] = ended(what, code, now, gone=False)
        elif kind == "go" and workers[what].returncode is not None:
            workers[what] = dataclasses.replace(workers[what], gone=True)
        elif kind == "signal":
            signals += [what] if supervisor.verdict is None else []
            supervisor.signalled(what, now)
        elif kind == "time":
            now += what
        supervisor.tick(now)
        supervisor.observe(workers, now)
    ends = [w.returncode for w in workers if w.returncode is not None]
    workers = [
        dataclasses.replace(w, returncode=w.returncode or 0, ended_at=w.ended_at or now, gone=True)
        for w in workers
    ]
    supervisor.observe(workers, now)
    verdict = supervisor.verdict
    assert verdict is not None
    assert supervisor.deadline is None
    if signals:
        assert verdict == Verdict(False, 128 + signals[0], interrupted=True)
    elif not any(ends):
        assert verdict == Verdict(False, 0)
    else:
        assert verdict.exit_code in (1, 137)
        assert not verdict.restart or restart < 2
