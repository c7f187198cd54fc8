"""The other workers' side of a save as a state machine; see `chief_save`."""

from __future__ import annotations

import dataclasses

from distckpt.core.protocol import moment as moments
from distckpt.core.protocol.actions import (
    Action,
    AnnounceRendezvous,
    AwaitOpening,
    AwaitOutcome,
    Called,
    Discard,
    Event,
    Failed,
    Finish,
    Lost,
    Opened,
    ProtocolError,
    Read,
    ReadTogether,
    SendAnswer,
    SendReady,
    TimedOut,
    Told,
    Write,
    Written,
)
from distckpt.core.protocol.messages import Opening, Refusal, Rendezvous
from distckpt.core.protocol.moment import NOWHERE, Moment, Relation
from distckpt.core.protocol.write_plan import Plan
from distckpt.errors import Failure


class WorkerSave:
    """The side of a worker other than the chief in one save.

    Args:
      index: The worker's index.
      name: The name that this worker expects the checkpoint to have.
      directory: The directory as this worker was given it, made absolute.
      plan: This worker's plan.
      moment: The moment of this worker's state.
    """

    def __init__(
        self, index: int, name: str, directory: str, plan: Plan, moment: Moment = NOWHERE
    ) -> None:
        self._index = index
        self._name = name
        self._directory = directory
        self._plan = plan
        self._moment = moment
        self._last: Action | None = None
        self._refused: Failure | None = None
        self._late: Failure | None = None
        self._reported = False

    def start(self) -> list[Action]:
        """Returns the first actions."""
        return self._then(SendReady(self._plan.fingerprint), AwaitOpening(rendezvous=True))

    def on(self, event: Event) -> list[Action]:
        """Returns the actions that `event` leads to."""
        match self._last, event:
            case AwaitOpening(), Called(rendezvous):
                return self._answer(rendezvous)
            case ReadTogether(), Read():
                return self._then(AwaitOpening(rendezvous=False))
            case ReadTogether(), Failed(failure):
                return self._refuse(Refusal(self._index, failure))
            case AwaitOpening(), Opened(opening):
                refusal = self._compare(opening)
                return self._refuse(refusal) if refusal else self._then(Write(opening))
            case AwaitOpening(), Told(outcome):
                return self._then(Finish(outcome.failure))
            case AwaitOpening(rendezvous=True), TimedOut(failure):
                self._late = failure
                return self._then(AnnounceRendezvous(Rendezvous("", False)))
            case AnnounceRendezvous(), Called(rendezvous) if rendezvous.complete:
                return self._then(ReadTogether())  # all have come after all and rely on this worker
            case AnnounceRendezvous(), Called():
                assert self._late is not None
                return self._give_up(self._late)
            case ((AwaitOpening() | AnnounceRendezvous()), TimedOut(failure)):
                return self._give_up(failure)
            case ((AwaitOpening() | AnnounceRendezvous()), Lost(failure)):
                return self._then(Finish(failure))
            case Write(), Written(report):
                self._reported = True
                return self._then(SendAnswer(report), AwaitOutcome())
            case Write(), Failed(failure):
                return self._refuse(Refusal(self._index, failure))
            case AwaitOutcome(), Told(outcome):
                if outcome.failure is None:
                    return self._then(Finish(None))
                return self._then(Discard(), Finish(outcome.failure))
            case AwaitOutcome(), Lost(failure) | TimedOut(failure):
                # Nothing is discarded: the commit may have happened, and then the files count.
                cause = unknown(failure) if self._reported else failure
                return self._then(Finish(self._refused or cause))
        raise ProtocolError(f"worker {self._index}: {event} after {self._last}")

    def _answer(self, rendezvous: Rendezvous) -> list[Action]:
        """Answers the rendezvous: with a collective only if all workers will take part in it."""
        if rendezvous.fingerprint and rendezvous.fingerprint != self._plan.fingerprint:
            return self._refuse(self._differs(rendezvous.fingerprint))
        return self._then(ReadTogether() if rendezvous.complete else AwaitOutcome())

    def _refuse(self, refusal: Refusal) -> list[Action]:
        self._refused = refusal.failure
        return self._then(SendAnswer(refusal), AwaitOutcome())

    def _give_up(self, failure: Failure) -> list[Action]:
        """Leaves, and tells the chief, which may come at any moment."""
        text = f"worker {self._index} gave up waiting: {failure.message}"
        told = dataclasses.replace(failure, message=text, worker=self._index)
        return self._then(SendAnswer(Refusal(self._index, told)), Finish(failure))

    def _compare(self, opening: Opening) -> Refusal | None:
        """Returns why this worker cannot take part in what the chief has opened."""
        here = f"worker {self._index}"
        if self._directory != opening.directory:
            text = (
                f"{here} saves to {self._directory!r} and the chief to {opening.directory!r}. "
                "Give every worker the same directory; distckpt needs no temporary directory for "
                "the others."
            )
        elif self._name != opening.name:
            text = (
                f"{here} came to save {self._name!r} and the chief {opening.name!r}. The workers "
                "must call save() at the same point of the program, with the same number; check "
                "that all restored the same checkpoint."
            )
        elif self._moment.relation(opening.moment) is not Relation.SAME:
            text = moments.differ(here, self._moment, opening.moment)
        elif self._plan.fingerprint != opening.fingerprint:
            return self._differs(opening.fingerprint)
        else:
            return None
        return Refusal(self._index, Failure("StateMismatchError", text, self._index))

    def _differs(self, fingerprint: str) -> Refusal:
        text = f"The state of worker {self._index} differs from the chief's. First differences:"
        failure = Failure("StateMismatchError", text, self._index)
        buckets = self._plan.differing(fingerprint)
        entries = self._plan.of_buckets(buckets)
        return Refusal(self._index, failure, entries, buckets=buckets)

    def _then(self, *actions: Action) -> list[Action]:
        self._last = actions[-1]
        return list(actions)


def unknown(cause: Failure) -> Failure:
    """Returns the failure of a worker that lost the chief after it had sent its report."""
    text = (
        f"{cause.message} The save may or may not have been committed. Restart, and restore the "
        "newest checkpoint: it is this one or the one before."
    )
    return Failure("CommitUnknownError", text, cause.worker)
