"""The save protocol as two state machines without I/O: events in, actions out.

`ChiefSave` runs on worker 0, `WorkerSave` on all others, one instance for each call of ``save()``.
A driver (`distckpt.roles.session`, or a simulator) performs the actions in the order given and
feeds back one event for each action that has one; etcd's raft is built this way. The steps, with
the numbers of docs/protocol.md:

    chief                                 worker
    1 SendReady                           1 SendReady
      AwaitReady → Ready | Lost | …
      AnnounceRoll → Called                 AwaitOpening → Called | Opened | Told | Lost | TimedOut
      ReadTogether → Read | Failed          ReadTogether → Read | Failed
    2 Open       → Opened | Failed        2 AwaitOpening → Opened | Told | Lost | TimedOut
      AnnounceOpening
    3 Write      → Written | Failed | …   3 Write        → Written | Failed
    4 AwaitAnswer → Answered | Lost | …   4 SendAnswer
    5 Merge      → Merged | Failed
    6 Commit     → Committed | Failed
    7 Tell                                7 AwaitOutcome → Told | Lost | TimedOut, Finish
    8 Prune      → Pruned, Finish

Of step 1, all but SendReady is only for a state with values that all workers must read together,
by a collective: it has no deadline, so it must not begin before all have come with the same state,
nor after somebody has given up waiting. So who gives up says it with a roll, too: of several rolls
the first published counts, for everybody.

Whatever fails before step 6 ends in Discard, Tell, Finish. After step 6 nothing fails any more, and
nobody waits for the pruning but the chief itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from distckpt.core import plan as planning
from distckpt.core import replicas
from distckpt.core.messages import Opening, Refusal, Report, Roll
from distckpt.core.plan import Plan
from distckpt.core.replicas import Check
from distckpt.core.steps import (
    Action,
    AnnounceOpening,
    AnnounceRoll,
    Answered,
    AwaitAnswer,
    AwaitOpening,
    AwaitOutcome,
    AwaitReady,
    Called,
    Commit,
    Committed,
    Discard,
    Event,
    Failed,
    Finish,
    Lost,
    Merge,
    Merged,
    Open,
    Opened,
    Prune,
    Pruned,
    Read,
    ReadTogether,
    Ready,
    SendAnswer,
    SendReady,
    Tell,
    TimedOut,
    Told,
    Write,
    Written,
)
from distckpt.errors import Failure

_NO_CHECK = Check()
_REPAIR = (
    "Nothing was saved. Restart the job: it resumes from the last committed checkpoint. If it "
    "happens again, look for what changes variables on one worker alone (assignments outside of "
    "the strategy, random numbers of different seeds), and for bad hardware on the workers named."
)


class ProtocolError(AssertionError):
    """A driver fed an event that the machine does not wait for: a bug, not a condition."""


class ChiefSave:
    """The chief's side of one save.

    Args:
      plan: The chief's plan; its share 0 is the chief's own.
      check: What of the workers' copies is compared.
      what: What is saved, for texts: "ckpt-12 (step 1200)".
    """

    def __init__(self, plan: Plan, check: Check = _NO_CHECK, what: str = "this save") -> None:
        self._plan = plan
        self._check = check
        self._what = what
        self._warning = ""
        self._others = frozenset(range(1, plan.workers))
        self._ready: dict[int, str] = {}
        self._reports: dict[int, Report] = {}
        self._last: Action | None = None

    def start(self) -> list[Action]:
        """Returns the first actions."""
        if not self._plan.collective:
            next_one: Action = Open()
        else:
            next_one = AwaitReady(self._others) if self._others else ReadTogether()
        return self._then(SendReady(self._plan.fingerprint), next_one)

    def on(self, event: Event) -> list[Action]:
        """Returns the actions that `event` leads to."""
        match self._last, event:
            case AwaitReady(), Ready(worker, fingerprint):
                return self._call(worker, fingerprint)
            case AwaitReady(), Answered(Refusal() as refusal):
                return self._fail(self._explain(refusal))
            case AwaitReady(), Lost(failure) | TimedOut(failure):
                return self._fail(failure)
            case AnnounceRoll(), Called(roll):
                return self._then(ReadTogether() if roll.complete else AwaitAnswer(self._others))
            case AnnounceRoll(), Lost(failure) | TimedOut(failure):
                return self._fail(failure)
            case ReadTogether(), Read():
                return self._then(Open())
            case ReadTogether(), Failed(failure):
                return self._fail(failure)
            case Open(), Opened(opening):
                return self._then(AnnounceOpening(opening), Write(opening))
            case Open(), Failed(failure):
                return self._then(Tell(failure), Finish(failure))
            case Write(), Written(report):
                return self._take(report)
            case AwaitAnswer(), Answered(Report() as report):
                return self._take(report)
            case ((Write() | AwaitAnswer()), Answered(Refusal() as refusal)):
                return self._fail(self._explain(refusal))
            case ((Write() | AwaitAnswer()), Lost(failure)):
                return self._fail(failure)
            case AwaitAnswer(), TimedOut(failure):
                return self._fail(failure)
            case Merge(), Merged():
                return self._then(Commit(self._in_order()))
            case Commit(), Committed():
                return self._then(Tell(None, self._warning), Prune())
            case Prune(), Pruned():
                return self._then(Finish(None))
            case Write() | Merge() | Commit(), Failed(failure):
                return self._fail(failure)
        raise ProtocolError(f"chief: {event} after {self._last}")

    def _call(self, worker: int, fingerprint: str) -> list[Action]:
        self._ready[worker] = fingerprint
        missing = self._others - self._ready.keys()
        if missing:
            return self._then(AwaitReady(missing))
        mine = self._plan.fingerprint
        complete = all(fingerprint == mine for fingerprint in self._ready.values())
        return self._then(AnnounceRoll(Roll(mine, complete)))

    def _take(self, report: Report) -> list[Action]:
        if report.worker in self._reports:
            raise ProtocolError(f"chief: second report of worker {report.worker}")
        wrong = unplanned(self._plan, report)
        if wrong:
            return self._fail(Failure("SaveFailedError", wrong, report.worker))
        unlike = replicas.unlike(self._plan, report, self._check)
        if unlike:
            return self._fail(Failure("ConfigurationError", unlike, report.worker))
        self._reports[report.worker] = report
        missing = frozenset(range(self._plan.workers)) - self._reports.keys()
        if missing:
            return self._then(AwaitAnswer(missing))
        return self._compare()

    def _compare(self) -> list[Action]:
        """Goes on with all reports, unless the workers' copies differ and must not."""
        lopsided = unequal_states(self._in_order())
        if lopsided:
            return self._fail(Failure("StateMismatchError", lopsided))
        found = replicas.compare(self._plan, self._reports, self._check)
        if found:
            among = len(replicas.compared(self._plan, self._check))
            text = replicas.explain(found, among, self._what)
            if self._check.mode == "error":
                failure = Failure(
                    "ReplicaMismatchError", f"{text}\n{_REPAIR}", replicas.culprit(found)
                )
                return self._fail(failure)
            self._warning = f"{text}\nIt is saved all the same, each value as its writer holds it."
        return self._then(Merge(self._in_order()))

    def _in_order(self) -> tuple[Report, ...]:
        return tuple(self._reports[worker] for worker in sorted(self._reports))

    def _explain(self, refusal: Refusal) -> Failure:
        if refusal.entries is None:
            return refusal.failure
        lines = planning.first_differences(self._plan.entries, refusal.entries)
        text = refusal.failure.message + "".join(f"\n  {line}" for line in lines)
        return dataclasses.replace(refusal.failure, message=text)

    def _fail(self, failure: Failure) -> list[Action]:
        return self._then(Discard(), Tell(failure), Finish(failure))

    def _then(self, *actions: Action) -> list[Action]:
        self._last = actions[-1]
        return list(actions)


class WorkerSave:
    """The side of one save of a worker that is not the chief.

    Args:
      index: The worker's index.
      name: The name that this worker thinks the checkpoint will have.
      directory: The directory as this worker was given it, made absolute.
      plan: This worker's plan.
    """

    def __init__(self, index: int, name: str, directory: str, plan: Plan) -> None:
        self._index = index
        self._name = name
        self._directory = directory
        self._plan = plan
        self._last: Action | None = None
        self._refused: Failure | None = None
        self._late: Failure | None = None
        self._reported = False

    def start(self) -> list[Action]:
        """Returns the first actions."""
        return self._then(SendReady(self._plan.fingerprint), AwaitOpening(roll=True))

    def on(self, event: Event) -> list[Action]:
        """Returns the actions that `event` leads to."""
        match self._last, event:
            case AwaitOpening(), Called(roll):
                return self._answer(roll)
            case ReadTogether(), Read():
                return self._then(AwaitOpening(roll=False))
            case ReadTogether(), Failed(failure):
                return self._refuse(Refusal(self._index, failure))
            case AwaitOpening(), Opened(opening):
                refusal = self._compare(opening)
                return self._refuse(refusal) if refusal else self._then(Write(opening))
            case AwaitOpening(), Told(outcome):
                return self._then(Finish(outcome.failure))
            case AwaitOpening(roll=True), TimedOut(failure):
                self._late = failure
                return self._then(AnnounceRoll(Roll("", False)))
            case AnnounceRoll(), Called(roll) if roll.complete:
                return self._then(ReadTogether())  # all have come after all, and count on this one
            case AnnounceRoll(), Called():
                assert self._late is not None
                return self._give_up(self._late)
            case ((AwaitOpening() | AnnounceRoll()), TimedOut(failure)):
                return self._give_up(failure)
            case ((AwaitOpening() | AnnounceRoll()), Lost(failure)):
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

    def _answer(self, roll: Roll) -> list[Action]:
        """Answers the chief's roll: with a collective only if all workers will take part in it."""
        if roll.fingerprint and roll.fingerprint != self._plan.fingerprint:
            return self._refuse(self._differs())
        return self._then(ReadTogether() if roll.complete else AwaitOutcome())

    def _refuse(self, refusal: Refusal) -> list[Action]:
        self._refused = refusal.failure
        return self._then(SendAnswer(refusal), AwaitOutcome())

    def _give_up(self, failure: Failure) -> list[Action]:
        """Leaves, and lets the chief know, which may come any moment."""
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
        elif self._plan.fingerprint != opening.fingerprint:
            return self._differs()
        else:
            return None
        return Refusal(self._index, Failure("StateMismatchError", text, self._index))

    def _differs(self) -> Refusal:
        text = f"The state of worker {self._index} differs from the chief's. First differences:"
        failure = Failure("StateMismatchError", text, self._index)
        return Refusal(self._index, failure, self._plan.entries)

    def _then(self, *actions: Action) -> list[Action]:
        self._last = actions[-1]
        return list(actions)


def unplanned(plan: Plan, report: Report) -> str | None:
    """Returns what differs between a report and the worker's share of the plan, or None.

    What the state's own savers wrote stands in no plan and is accepted from the chief alone.
    """
    share = {p.identity: p for p in plan.shares[report.worker]}
    seen: set[tuple[str, str]] = set()
    for piece in report.pieces:
        identity = (piece.key, piece.spec)
        planned = share.get(identity)
        if planned is None:
            if report.worker == 0:
                continue
            return f"worker {report.worker} wrote {piece.key!r}, which was not its share."
        if identity in seen:
            return f"worker {report.worker} wrote {piece.key!r} twice."
        seen.add(identity)
        if (piece.dtype, piece.shape) != (planned.entry.dtype, planned.shape):
            return (
                f"worker {report.worker} wrote {piece.key!r} as {piece.dtype}{list(piece.shape)}; "
                f"planned was {planned.entry.dtype}{list(planned.shape)}."
            )
    missing: Sequence[tuple[str, str]] = sorted(share.keys() - seen)
    if missing:
        return (
            f"worker {report.worker} did not write {missing[0][0]!r} "
            f"({len(missing)} of {len(share)} entries are missing)."
        )
    return None


def unequal_states(reports: Sequence[Report]) -> str | None:
    """Returns what is wrong if only some of the workers have a state of their own, or None."""
    without = [report.worker for report in reports if report.own is None]
    if len(without) in (0, len(reports)):
        return None
    who = ", ".join(f"worker {worker}" for worker in without)
    return (
        f"worker_checkpoint was given on some workers, but not on these: {who}. Give it on all "
        "workers, or on none."
    )


def unknown(cause: Failure) -> Failure:
    """Returns the failure of a worker that lost the chief after it had sent its report."""
    text = (
        f"{cause.message} The save may or may not have been committed. Restart, and restore the "
        "newest checkpoint: it is this one or the one before."
    )
    return Failure("CommitUnknownError", text, cause.worker)
