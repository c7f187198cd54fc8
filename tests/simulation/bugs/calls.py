"""Bugs in how calls of a program are matched."""

from __future__ import annotations

from distckpt.calls.call_log import CallLog
from distckpt.calls.save_calls import SaveCalls
from distckpt.calls.thread_turns import ThreadTurns
from distckpt.core.protocol import messages
from distckpt.core.protocol.call_matching import Move
from distckpt.core.protocol.moment import Moment, Relation
from distckpt.messaging.waiting import Waiting

from .. import state
from .registry import Change, bug, nothing


@bug(program=True)
def moments_are_not_compared() -> list[Change]:
    """Calls are distinguished by their numbers alone."""
    return [(Moment, "relation", lambda self, other: Relation.SAME)]


@bug(program=True, background=True, counted=True, interval=4, policy=None, calls=6)
def an_entry_that_is_passed_over_is_not_heeded() -> list[Change]:
    """A worker forgets that the chief has begun a save in the background at that step."""

    def leave_out(self, call, move, error):
        if move is not Move.PASS:
            self._calls.refuse(error)
        self._calls.pass_on()

    return [(SaveCalls, "_leave_out", leave_out)]


@bug(program=True)
def a_withdrawal_counts_for_every_moment() -> list[Change]:
    """The chief gives up its call because a worker has withdrawn from an earlier one."""

    def answer(self, key, text):
        return messages.answer_from_json(text)

    return [(Waiting, "_answer", answer)]


@bug(program=True, kinds=["interrupted"])
def an_interrupted_entry_is_waited_for() -> list[Change]:
    """The chief was interrupted while it published an entry, and never says so."""
    return [(CallLog, "catch_up", nothing)]


@bug(program=True)
def a_worker_that_leaves_a_call_out_does_not_say_so() -> list[Change]:
    """It only moves on to the next entry."""
    return [(CallLog, "refuse", nothing), (CallLog, "withdraw", nothing)]


@bug(program=True, numbers="step", kinds=["another number"], counted=True)
def a_workers_own_number_is_not_compared() -> list[Change]:
    """A worker takes the name from the chief's entry, whatever number its program gave."""
    return [(SaveCalls, "_name_of", lambda self, call, expected: call.name)]


@bug(program=True, retries=True, counted=True)
def each_call_that_fails_counts_as_an_entry() -> list[Change]:
    """A worker that asks again has counted twice, though the chief has made one entry."""
    original = CallLog.withdraw

    def withdraw(self, moment, error):
        original(self, moment, error)
        self.pass_on()

    return [(CallLog, "withdraw", withdraw)]


@bug(program=True, background=True)
def what_is_given_is_not_copied() -> list[Change]:
    """A save in the background writes from memory that training has written since."""
    return [(state, "copy_of", lambda value: value)]


@bug(program=True, threads=True)
def threads_do_not_take_turns() -> list[Change]:
    """Two threads call save() at the same time."""
    return [(ThreadTurns, "__enter__", nothing), (ThreadTurns, "__exit__", nothing)]


@bug(program=True)
def keys_stay() -> list[Change]:
    """Published keys are never deleted."""
    return [(CallLog, "all_came", nothing)]
