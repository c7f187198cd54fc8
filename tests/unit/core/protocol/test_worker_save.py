"""A worker's state machine; tests/scenarios has whole conversations."""

from __future__ import annotations

import pytest

from distckpt.core.protocol import actions as s
from distckpt.core.protocol.actions import ProtocolError
from distckpt.core.protocol.chief_save import ChiefSave
from distckpt.core.protocol.messages import (
    Outcome,
    Refusal,
    Rendezvous,
    answer_from_json,
    to_json,
)
from distckpt.core.protocol.worker_save import unknown
from distckpt.core.protocol.write_plan import Entry, make_plan
from distckpt.errors import Failure

from .saves import ANSWERED, FAILURE, OPEN, READY, drive, opening, plan, report, worker


def test_a_worker_writes_reports_and_waits():
    one = worker()
    assert one.start() == [s.SendReady(plan().fingerprint), s.AwaitOpening(rendezvous=True)]
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
    incomplete = s.Called(Rendezvous(of.fingerprint, False))
    assert drive(worker(of=of), incomplete, lost) == [s.Finish(lost.failure)]


def test_a_worker_that_comes_too_late_raises_what_the_others_did():
    assert drive(worker(), s.Told(Outcome(FAILURE))) == [s.Finish(FAILURE)]


def test_a_worker_without_a_chief_leaves():
    assert drive(worker(), s.Lost(FAILURE)) == [s.Finish(FAILURE)]


def test_a_worker_that_gives_up_says_so():
    one = worker()
    late = Failure("DeadlineExceededError", "the chief never came", 0)
    assert drive(one, s.TimedOut(late)) == [s.AnnounceRendezvous(Rendezvous("", False))]
    send, finish = one.on(s.Called(Rendezvous("", False)))
    assert finish == s.Finish(late)
    assert send.answer.failure.message == "worker 1 gave up waiting: the chief never came"
    assert send.answer.failure.worker == 1


WORKERS = [(), (OPEN,), (OPEN, s.Written(report(1)))]


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


def test_unknown_keeps_the_cause_and_says_what_to_do():
    failure = unknown(Failure("WorkerLostError", "The chief died.", 0))
    assert failure.kind == "CommitUnknownError"
    assert failure.worker == 0
    assert failure.message.startswith("The chief died. ")
    assert "restore the newest checkpoint" in failure.message


def test_a_refusal_tells_of_the_first_differences_not_of_all_entries():
    """If the chief's plan is the odd one, a thousand workers send their entries."""
    mine = [Entry(f"layer-{n}", "float32", (8,), 32) for n in range(20_000)]
    other, more = Entry("layer-700", "float64", (8,), 64), Entry("more", "int64", (), 8)
    chiefs = make_plan([*mine[:700], other, *mine[702:], more], 2)
    here = worker(of=make_plan(mine, 2))
    send, _ = drive(here, s.Opened(opening(chiefs)))
    assert len(to_json(send.answer)) < 100_000
    refusal = s.Answered(answer_from_json(to_json(send.answer)))
    tell = drive(ChiefSave(chiefs), s.Opened(opening(chiefs)), refusal)[1]
    lines = tell.failure.message.splitlines()[1:]
    assert lines == [
        "  layer-700: float64[8] on the chief, float32[8] there",
        "  layer-701: absent on the chief, float32[8] there",
        "  more: int64[] on the chief, absent there",
    ]
