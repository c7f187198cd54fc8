"""Clauses of the save protocol; tests/scenarios has whole conversations."""

from __future__ import annotations

import dataclasses

import pytest

from distckpt.core import steps as s
from distckpt.core.messages import (
    Opening,
    Outcome,
    Refusal,
    Report,
    Roll,
    WrittenFile,
    WrittenPiece,
    WrittenState,
)
from distckpt.core.plan import Entry, make_plan
from distckpt.core.protocol import ChiefSave, ProtocolError, WorkerSave, unknown, unplanned
from distckpt.errors import Failure

ENTRIES = [
    Entry("kernel", "float32", (96, 128), 96 * 128 * 4),
    Entry("bias", "float32", (128,), 512),
    Entry("graph", "string", (), 16, chief_only=True),
]
TOTAL = Entry("total", "float32", (), 4, collective=True)
FAILURE = Failure("StorageFullError", "full", 1)


def plan(workers=2, *, collective=False):
    return make_plan([*ENTRIES, TOTAL] if collective else ENTRIES, workers)


def opening(of=None, **changes):
    fingerprint = (of or plan()).fingerprint
    return dataclasses.replace(Opening("a1", "ckpt-1", "/d", fingerprint, "t"), **changes)


def report(worker, of=None):
    pieces = tuple(
        WrittenPiece(p.entry.key, p.entry.dtype, p.shape, p.spec, 0, 0, p.nbytes, 0)
        for p in (of or plan()).shares[worker]
    )
    return Report(worker, "h", 1, 0.0, ("shard",), (), pieces)


def worker(index=1, name="ckpt-1", directory="/d", of=None):
    return WorkerSave(index, name, directory, of or plan())


def drive(machine, *events):
    """Feeds events; returns the actions that the last one led to."""
    actions = machine.start()
    for event in events:
        actions = machine.on(event)
    return actions


REPORTS = (report(0), report(1))
OPEN = s.Opened(opening())
WROTE = s.Written(report(0))
ANSWERED = s.Answered(report(1))
READY = s.Ready(1, plan(collective=True).fingerprint)
COMPLETE = s.Called(Roll(plan(collective=True).fingerprint, True))


# --- The chief


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
    refusal = Refusal(1, Failure("StateMismatchError", "It differs:", 1), theirs)
    tell = drive(ChiefSave(plan()), OPEN, WROTE, s.Answered(refusal))[1]
    assert tell.failure.message == (
        "It differs:\n  graph: string[], not mirrored on the chief, absent there"
        "\n  more: absent on the chief, int64[] there"
    )
    assert (tell.failure.kind, tell.failure.worker) == ("StateMismatchError", 1)


# --- A worker


def test_a_worker_writes_reports_and_waits():
    one = worker()
    assert one.start() == [s.SendReady(plan().fingerprint), s.AwaitOpening(roll=True)]
    assert one.on(OPEN) == [s.Write(opening())]
    assert one.on(s.Written(report(1))) == [s.SendAnswer(report(1)), s.AwaitOutcome()]
    assert one.on(s.Told(Outcome(None, "ckpt-1"))) == [s.Finish(None)]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ({"name": "ckpt-2"}, "came to save 'ckpt-1' and the chief 'ckpt-2'"),
        ({"directory": "/e"}, "saves to '/d' and the chief to '/e'"),
        ({"fingerprint": "x"}, "differs from the chief's"),
    ],
)
def test_a_worker_refuses_what_is_not_its_own_save(what, text):
    send, wait = drive(worker(), s.Opened(opening(**what)))
    assert text in send.answer.failure.message
    assert "worker 1" in send.answer.failure.message
    assert send.answer.failure.kind == "StateMismatchError"
    assert wait == s.AwaitOutcome()
    assert (send.answer.entries is not None) == ("fingerprint" in what)


def test_a_worker_that_failed_tells_the_chief_and_waits_for_its_word():
    send, wait = drive(worker(), OPEN, s.Failed(FAILURE))
    assert send == s.SendAnswer(Refusal(1, FAILURE))
    assert wait == s.AwaitOutcome()


def test_a_worker_removes_its_files_only_when_it_is_told_that_nothing_was_committed():
    told = drive(worker(), OPEN, s.Written(report(1)), s.Told(Outcome(FAILURE)))
    assert told == [s.Discard(), s.Finish(FAILURE)]
    for event in (s.Lost(FAILURE), s.TimedOut(FAILURE)):
        actions = drive(worker(), OPEN, s.Written(report(1)), event)
        assert s.Discard() not in actions


@pytest.mark.parametrize("kind", [s.Lost, s.TimedOut])
def test_after_its_report_a_worker_without_word_does_not_know(kind):
    (finish,) = drive(worker(), OPEN, s.Written(report(1)), kind(FAILURE))
    assert finish.failure.kind == "CommitUnknownError"
    assert "full" in finish.failure.message
    assert "may or may not have been committed" in finish.failure.message


@pytest.mark.parametrize("kind", [s.Lost, s.TimedOut])
def test_after_its_refusal_a_worker_without_word_knows_that_nothing_was_committed(kind):
    lost = kind(Failure("WorkerLostError", "chief died", 0))
    assert drive(worker(), OPEN, s.Failed(FAILURE), lost) == [s.Finish(FAILURE)]


@pytest.mark.parametrize("kind", [s.Lost, s.TimedOut])
def test_without_a_report_nothing_can_have_been_committed(kind):
    lost = kind(Failure("WorkerLostError", "chief died", 0))
    of = plan(collective=True)
    incomplete = s.Called(Roll(of.fingerprint, False))
    assert drive(worker(of=of), incomplete, lost) == [s.Finish(lost.failure)]


def test_a_worker_that_comes_too_late_raises_what_the_others_did():
    assert drive(worker(), s.Told(Outcome(FAILURE))) == [s.Finish(FAILURE)]


def test_a_worker_without_a_chief_leaves():
    assert drive(worker(), s.Lost(FAILURE)) == [s.Finish(FAILURE)]


def test_a_worker_that_gives_up_says_so():
    one = worker()
    late = Failure("DeadlineExceededError", "the chief never came", 0)
    assert drive(one, s.TimedOut(late)) == [s.AnnounceRoll(Roll("", False))]
    send, finish = one.on(s.Called(Roll("", False)))
    assert finish == s.Finish(late)
    assert send.answer.failure.message == "worker 1 gave up waiting: the chief never came"
    assert send.answer.failure.worker == 1


# --- Reading together


def test_nobody_reads_before_all_have_come():
    of = plan(3, collective=True)
    chief = ChiefSave(of)
    assert chief.start()[1] == s.AwaitReady(frozenset({1, 2}))
    assert chief.on(s.Ready(2, of.fingerprint)) == [s.AwaitReady(frozenset({1}))]
    assert chief.on(s.Ready(1, of.fingerprint)) == [s.AnnounceRoll(Roll(of.fingerprint, True))]
    assert chief.on(s.Called(Roll(of.fingerprint, True))) == [s.ReadTogether()]
    assert chief.on(s.Read()) == [s.Open()]


def test_nobody_reads_if_somebodys_state_differs():
    of = plan(3, collective=True)
    events = s.Ready(1, of.fingerprint), s.Ready(2, "other")
    (announce,) = drive(ChiefSave(of), *events)
    assert announce == s.AnnounceRoll(Roll(of.fingerprint, False))


def test_of_two_rolls_the_first_counts_for_the_chief_too():
    of = plan(2, collective=True)
    given_up = s.Called(Roll("", False))
    assert drive(ChiefSave(of), s.Ready(1, of.fingerprint), given_up) == [
        s.AwaitAnswer(frozenset({1}))
    ]


def test_who_gives_up_and_finds_the_roll_called_takes_part():
    of = plan(2, collective=True)
    assert drive(worker(of=of), s.TimedOut(FAILURE), COMPLETE) == [s.ReadTogether()]


def test_who_hears_that_somebody_gave_up_does_not_take_it_for_a_difference():
    of = plan(2, collective=True)
    assert drive(worker(of=of), s.Called(Roll("", False))) == [s.AwaitOutcome()]


def test_who_differs_from_the_roll_refuses_with_all_its_entries():
    of = plan(2, collective=True)
    send, _ = drive(worker(of=of), s.Called(Roll("other", False)))
    assert send.answer.entries == of.entries


def test_after_the_read_the_save_goes_on_as_always():
    of = plan(2, collective=True)
    assert drive(worker(of=of), COMPLETE, s.Read()) == [s.AwaitOpening(roll=False)]
    one = worker(of=of)
    assert drive(one, COMPLETE, s.Read(), s.Opened(opening(of))) == [s.Write(opening(of))]


@pytest.mark.parametrize("event", [s.Lost(FAILURE), s.TimedOut(FAILURE), s.Failed(FAILURE)])
def test_a_read_that_fails_fails_the_save(event):
    of = plan(2, collective=True)
    before = (READY, COMPLETE) if isinstance(event, s.Failed) else ()
    actions = drive(ChiefSave(of), *before, event)
    assert actions[-2:] == [s.Tell(FAILURE), s.Finish(FAILURE)]


def test_a_job_of_one_reads_alone():
    of = plan(1, collective=True)
    assert ChiefSave(of).start() == [s.SendReady(of.fingerprint), s.ReadTogether()]


# --- Bugs of drivers

CHIEFS = [(), (OPEN,), (OPEN, WROTE), (OPEN, WROTE, ANSWERED)]
WORKERS = [(), (OPEN,), (OPEN, s.Written(report(1)))]


@pytest.mark.parametrize("before", CHIEFS, ids=len)
def test_an_event_that_the_chief_does_not_wait_for_is_a_bug(before):
    expected = {0: s.Opened, 1: s.Written, 2: s.Answered, 3: s.Merged}[len(before)]
    for event in (OPEN, WROTE, ANSWERED, s.Merged(), s.Committed(), s.Pruned(), s.Read(), READY):
        chief = ChiefSave(plan())
        drive(chief, *before)
        if not isinstance(event, expected):
            with pytest.raises(ProtocolError, match="chief: "):
                chief.on(event)


@pytest.mark.parametrize("before", WORKERS, ids=len)
def test_an_event_that_a_worker_does_not_wait_for_is_a_bug(before):
    for event in (ANSWERED, s.Merged(), s.Committed(), s.Pruned(), READY):
        one = worker()
        drive(one, *before)
        with pytest.raises(ProtocolError, match="worker 1: "):
            one.on(event)


def test_nothing_comes_after_the_end():
    one = worker()
    drive(one, s.Lost(FAILURE))
    with pytest.raises(ProtocolError):
        one.on(s.Told(Outcome(None)))


# --- Reports against the plan


def change(of, **changes):
    return dataclasses.replace(of, pieces=(of.pieces[0]._replace(**changes), *of.pieces[1:]))


def test_an_honest_report_is_as_planned():
    for workers in (1, 2, 5):
        of = plan(workers)
        assert [unplanned(of, report(i, of)) for i in range(workers)] == [None] * workers


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"key": "foreign"}, "worker 1 wrote 'foreign', which was not its share"),
        ({"spec": "96 128 0,5:-"}, "which was not its share"),
        ({"dtype": "float16"}, "as float16"),
        ({"shape": (3, 4)}, r"as float32[3, 4]; planned was float32["),
    ],
)
def test_a_report_that_is_not_as_planned_is_named(changes, text):
    assert text in unplanned(plan(), change(report(1), **changes))


def test_missing_and_doubled_pieces_are_counted():
    of = report(0)
    short = dataclasses.replace(of, pieces=of.pieces[:1])
    assert f"({len(of.pieces) - 1} of {len(of.pieces)} entries are missing)" in unplanned(
        plan(), short
    )
    double = dataclasses.replace(of, pieces=(*of.pieces, of.pieces[0]))
    assert "twice" in unplanned(plan(), double)


def test_what_the_chief_adds_is_accepted_from_it_alone():
    extra = report(0).pieces[0]._replace(key="from a registered saver")
    ours = dataclasses.replace(report(0), pieces=(*report(0).pieces, extra))
    theirs = dataclasses.replace(report(1), pieces=(*report(1).pieces, extra))
    assert unplanned(plan(), ours) is None
    assert "not its share" in unplanned(plan(), theirs)


def test_unknown_keeps_the_cause_and_says_what_to_do():
    failure = unknown(Failure("WorkerLostError", "The chief died.", 0))
    assert failure.kind == "CommitUnknownError"
    assert failure.worker == 0
    assert failure.message.startswith("The chief died. ")
    assert "restore the newest checkpoint" in failure.message


# --- What only single workers have


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
