"""The chief's state machine; tests/scenarios has whole conversations."""

from __future__ import annotations

import dataclasses

import pytest

from distckpt.core.protocol import actions as s
from distckpt.core.protocol.actions import ProtocolError
from distckpt.core.protocol.chief_save import ChiefSave
from distckpt.core.protocol.messages import Refusal, WrittenFile, WrittenState
from distckpt.core.protocol.write_plan import BUCKETS, Entry
from distckpt.errors import Failure

from .saves import (
    ANSWERED,
    ENTRIES,
    FAILURE,
    OPEN,
    READY,
    REPORTS,
    WROTE,
    drive,
    opening,
    plan,
    report,
)


def test_the_chief_opens_announces_writes_gathers_merges_commits_tells_and_prunes():
    chief = ChiefSave(plan())
    assert chief.start() == [s.SendReady(plan().fingerprint), s.Open()]
    assert chief.on(OPEN) == [s.AnnounceOpening(opening()), s.Write(opening())]
    assert chief.on(WROTE) == [s.AwaitAnswer(frozenset({1}))]
    assert chief.on(ANSWERED) == [s.Merge(REPORTS)]
    assert chief.on(s.Merged()) == [s.Commit(REPORTS)]
    assert chief.on(s.Committed()) == [s.Tell(None), s.Prune()]
    assert chief.on(s.Pruned()) == [s.Finish(None)]


def test_reports_are_merged_in_the_order_of_workers_whatever_the_order_they_come_in():
    of = plan(4)
    reports = [report(i, of) for i in range(4)]
    answers = [s.Answered(reports[i]) for i in (3, 1, 2)]
    written = s.Written(reports[0])
    assert drive(ChiefSave(of), s.Opened(opening(of)), written, *answers) == [
        s.Merge(tuple(reports))
    ]


def test_the_chief_waits_for_those_that_are_missing_only():
    of = plan(4)
    events = s.Opened(opening(of)), s.Written(report(0, of)), s.Answered(report(2, of))
    assert drive(ChiefSave(of), *events) == [s.AwaitAnswer(frozenset({1, 3}))]


@pytest.mark.parametrize(
    "events",
    [
        (OPEN, s.Failed(FAILURE)),
        (OPEN, s.Answered(Refusal(1, FAILURE))),
        (OPEN, s.Lost(FAILURE)),
        (OPEN, WROTE, s.Answered(Refusal(1, FAILURE))),
        (OPEN, WROTE, s.Lost(FAILURE)),
        (OPEN, WROTE, s.TimedOut(FAILURE)),
        (OPEN, WROTE, ANSWERED, s.Failed(FAILURE)),
        (OPEN, WROTE, ANSWERED, s.Merged(), s.Failed(FAILURE)),
    ],
    ids=[
        "write",
        "refusal-meanwhile",
        "death-meanwhile",
        "refusal",
        "death",
        "deadline",
        "merge",
        "commit",
    ],
)
def test_what_fails_before_the_commit_is_discarded_and_told_to_all(events):
    assert drive(ChiefSave(plan()), *events) == [
        s.Discard(),
        s.Tell(FAILURE),
        s.Finish(FAILURE),
    ]


def test_what_was_never_opened_is_not_discarded():
    assert drive(ChiefSave(plan()), s.Failed(FAILURE)) == [s.Tell(FAILURE), s.Finish(FAILURE)]


def test_after_the_commit_no_failure_is_possible():
    chief = ChiefSave(plan())
    drive(chief, OPEN, WROTE, ANSWERED, s.Merged(), s.Committed())
    for event in (s.Failed(FAILURE), s.Lost(FAILURE), s.TimedOut(FAILURE)):
        with pytest.raises(ProtocolError):
            chief.on(event)


def test_a_second_report_of_one_worker_is_a_bug():
    of = plan(3)
    chief = ChiefSave(of)
    drive(chief, s.Opened(opening(of)), s.Written(report(0, of)), s.Answered(report(1, of)))
    with pytest.raises(ProtocolError, match="second report of worker 1"):
        chief.on(s.Answered(report(1, of)))


def test_a_refusal_with_entries_is_explained_by_the_chief():
    theirs = (*ENTRIES[:2], Entry("more", "int64", (), 8))
    failure = Failure("StateMismatchError", "It differs:", 1)
    refusal = Refusal(1, failure, theirs, buckets=tuple(range(BUCKETS)))
    tell = drive(ChiefSave(plan()), OPEN, WROTE, s.Answered(refusal))[1]
    assert tell.failure.message == (
        "It differs:\n  graph: string[], not mirrored on the chief, absent there"
        "\n  more: absent on the chief, int64[] there"
    )
    assert (tell.failure.kind, tell.failure.worker) == ("StateMismatchError", 1)


CHIEFS = [(), (OPEN,), (OPEN, WROTE), (OPEN, WROTE, ANSWERED)]


@pytest.mark.parametrize("before", CHIEFS, ids=len)
def test_an_event_that_the_chief_does_not_wait_for_is_a_bug(before):
    expected = {0: s.Opened, 1: s.Written, 2: s.Answered, 3: s.Merged}[len(before)]
    for event in (OPEN, WROTE, ANSWERED, s.Merged(), s.Committed(), s.Pruned(), s.Read(), READY):
        chief = ChiefSave(plan())
        drive(chief, *before)
        if not isinstance(event, expected):
            with pytest.raises(ProtocolError, match="chief: "):
                chief.on(event)


STATE = WrittenState("own", WrittenFile("own.index", 3), 7, ())


def with_state(*workers):
    return [dataclasses.replace(r, own=STATE) if r.worker in workers else r for r in REPORTS]


@pytest.mark.parametrize("workers", [(), (0, 1)])
def test_all_workers_have_a_state_of_their_own_or_none(workers):
    first, second = with_state(*workers)
    actions = drive(ChiefSave(plan()), OPEN, s.Written(first), s.Answered(second))
    assert actions == [s.Merge((first, second))]


@pytest.mark.parametrize(("having", "lacking"), [(0, 1), (1, 0)])
def test_who_lacks_a_state_of_its_own_is_named_and_nothing_is_saved(having, lacking):
    first, second = with_state(having)
    actions = drive(ChiefSave(plan()), OPEN, s.Written(first), s.Answered(second))
    assert [type(action) for action in actions] == [s.Discard, s.Tell, s.Finish]
    assert actions[-1].failure.kind == "StateMismatchError"
    assert f"not on these: worker {lacking}." in actions[-1].failure.message
