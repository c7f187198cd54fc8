"""State that all workers must read together: the rendezvous before the read."""

from __future__ import annotations

import pytest

from distckpt.core.protocol import actions as s
from distckpt.core.protocol.chief_save import ChiefSave
from distckpt.core.protocol.messages import Rendezvous

from .saves import COMPLETE, FAILURE, READY, drive, opening, plan, worker


def test_nobody_reads_before_all_have_come():
    of = plan(3, collective=True)
    chief = ChiefSave(of)
    assert chief.start()[1] == s.AwaitReady(frozenset({1, 2}))
    assert chief.on(s.Ready(2, of.fingerprint)) == [s.AwaitReady(frozenset({1}))]
    assert chief.on(s.Ready(1, of.fingerprint)) == [
        s.AnnounceRendezvous(Rendezvous(of.fingerprint, True))
    ]
    assert chief.on(s.Called(Rendezvous(of.fingerprint, True))) == [s.ReadTogether()]
    assert chief.on(s.Read()) == [s.Open()]


def test_nobody_reads_if_somebodys_state_differs():
    of = plan(3, collective=True)
    events = s.Ready(1, of.fingerprint), s.Ready(2, "other")
    (announce,) = drive(ChiefSave(of), *events)
    assert announce == s.AnnounceRendezvous(Rendezvous(of.fingerprint, False))


def test_of_two_rendezvous_the_first_counts_for_the_chief_too():
    of = plan(2, collective=True)
    given_up = s.Called(Rendezvous("", False))
    assert drive(ChiefSave(of), s.Ready(1, of.fingerprint), given_up) == [
        s.AwaitAnswer(frozenset({1}))
    ]


def test_who_gives_up_and_finds_the_rendezvous_complete_takes_part():
    of = plan(2, collective=True)
    assert drive(worker(of=of), s.TimedOut(FAILURE), COMPLETE) == [s.ReadTogether()]


def test_who_hears_that_somebody_gave_up_does_not_take_it_for_a_difference():
    of = plan(2, collective=True)
    assert drive(worker(of=of), s.Called(Rendezvous("", False))) == [s.AwaitOutcome()]


def test_who_differs_from_the_rendezvous_refuses_with_all_its_entries():
    of = plan(2, collective=True)
    send, _ = drive(worker(of=of), s.Called(Rendezvous("other", False)))
    assert send.answer.entries == of.entries


def test_after_the_read_the_save_goes_on_as_always():
    of = plan(2, collective=True)
    assert drive(worker(of=of), COMPLETE, s.Read()) == [s.AwaitOpening(rendezvous=False)]
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
