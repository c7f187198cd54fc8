"""Bugs in the protocol of a save."""

from __future__ import annotations

import math

from distckpt.core.protocol import actions, messages
from distckpt.core.protocol.chief_save import ChiefSave
from distckpt.core.protocol.worker_save import WorkerSave
from distckpt.errors import Failure
from distckpt.messaging.keys import Keys
from distckpt.messaging.waiting import Waiting
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.save_session import SaveSession

from .registry import Change, bug


@bug()
def commit_before_the_last_report() -> list[Change]:
    """The chief does not wait for the worker that answers last."""
    original = ChiefSave._take

    def take(self, report):
        then = original(self, report)
        if isinstance(then[-1], actions.AwaitAnswer) and len(then[-1].workers) == 1:
            return self._then(actions.Merge(self._in_order()))
        return then

    return [(ChiefSave, "_take", take)]


@bug()
def success_is_told_before_the_commit() -> list[Change]:
    """The workers are told of success when all have written."""
    original = SaveSession._do

    def do(self, action):
        event = original(self, action)
        if isinstance(action, actions.Merge):
            self._tell(None)
        return event

    return [(SaveSession, "_do", do)]


@bug()
def prune_before_commit() -> list[Change]:
    """Retention deletes old checkpoints before the new one exists."""
    original = ChiefPart.commit

    def commit(self, reports):
        keep, active = self._managed._max_to_keep, self._managed.active
        if keep and len(active) >= keep:
            self._managed.delete([kept.name for kept in active[: len(active) - keep + 1]], None)
        return original(self, reports)

    return [(ChiefPart, "commit", commit)]


@bug()
def report_of_an_older_save_is_accepted() -> list[Change]:
    """The key of an answer does not say which save it is for."""
    return [(Keys, "answer", lambda self, worker, turn=0: f"sim/answer-{worker}-{turn}")]


@bug()
def collective_without_a_rendezvous() -> list[Change]:
    """All workers start the collective read at once, without knowing whether all will come."""

    def start(self):
        ready = actions.SendReady(self._plan.fingerprint)
        return self._then(
            ready, actions.ReadTogether() if self._plan.collective else actions.Open()
        )

    original = WorkerSave.start

    def start_worker(self):
        if not self._plan.collective:
            return original(self)
        return self._then(actions.SendReady(self._plan.fingerprint), actions.ReadTogether())

    return [(ChiefSave, "start", start), (WorkerSave, "start", start_worker)]


@bug()
def wait_without_a_deadline() -> list[Change]:
    """A worker waits for the outcome without a deadline."""
    original = Waiting.for_outcome

    def for_outcome(self):
        self._deadline = math.inf
        return original(self)

    return [(Waiting, "for_outcome", for_outcome)]


@bug(collective=True, late=True, slow_factor=1.0, kinds=["slow", "pause"])
def a_rendezvous_is_not_waited_for() -> list[Change]:
    """A worker that gives up before it sees the rendezvous leaves; the others read together."""

    def for_rendezvous(self):
        got = self._fetch([self._keys.rendezvous], [0])
        if got is None or isinstance(got, Failure):
            return actions.TimedOut(got or self._too_late([0]))
        return actions.Called(messages.rendezvous_from_json(got[1]))

    return [(Waiting, "for_rendezvous", for_rendezvous)]


@bug(deadline=3.0, kinds=["fail_once"])
def write_on_when_the_save_is_over() -> list[Change]:
    """A late worker looks for a folder that no longer exists, and misses the next save."""
    return [(Waiting, "is_over", lambda self: False)]
