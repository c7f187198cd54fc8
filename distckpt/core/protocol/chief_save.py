"""The save protocol as two state machines without I/O: events in, actions out.

`ChiefSave` runs on worker 0, `WorkerSave` on all others, one instance for each call of ``save()``.
A driver (`saving.save_session`, or a simulator) performs the actions in the order given and feeds
back one event for each action that has one; etcd's raft is built this way. The actions, with the
numbers of docs/protocol.md:

    chief                                 worker
    1 SendReady                           1 SendReady
      AwaitReady → Ready | Lost | …
      AnnounceRendezvous → Called           AwaitOpening → Called | Opened | Told | Lost | TimedOut
      ReadTogether → Read | Failed          ReadTogether → Read | Failed
    2 Open       → Opened | Failed        2 AwaitOpening → Opened | Told | Lost | TimedOut
      AnnounceOpening
    3 Write      → Written | Failed | …   3 Write        → Written | Failed
    4 AwaitAnswer → Answered | Lost | …   4 SendAnswer
    5 Merge      → Merged | Failed
    6 Commit     → Committed | Failed
    7 Tell                                7 AwaitOutcome → Told | Lost | TimedOut, Finish
    8 Prune      → Pruned, Finish

The rest of action 1, after SendReady, is only for a state with values that all workers must read
together, by a collective. A collective has no deadline, so it must not begin before all have come
with the same state, nor after a worker has given up waiting. So a worker that gives up publishes
an incomplete rendezvous. If there are several, the first one published counts for all workers.

Every failure before action 6 ends in Discard, Tell, Finish. After action 6 nothing fails any more,
and only the chief waits for the pruning.
"""

from __future__ import annotations

import dataclasses

from distckpt.core.protocol import moment as moments
from distckpt.core.protocol import replica_check
from distckpt.core.protocol import write_plan as planning
from distckpt.core.protocol.actions import (
    Action,
    AnnounceOpening,
    AnnounceRendezvous,
    Answered,
    AwaitAnswer,
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
    ProtocolError,
    Prune,
    Pruned,
    Read,
    ReadTogether,
    Ready,
    SendReady,
    Tell,
    TimedOut,
    Write,
    Written,
)
from distckpt.core.protocol.messages import Refusal, Rendezvous, Report
from distckpt.core.protocol.moment import NOWHERE, Moment, Relation
from distckpt.core.protocol.replica_check import Check
from distckpt.core.protocol.report_checks import unequal_states, unplanned
from distckpt.core.protocol.write_plan import Plan
from distckpt.errors import Failure

_NO_CHECK = Check()
_REPAIR = (
    "Nothing was saved. Restart the job: it resumes from the last committed checkpoint. If it "
    "happens again, look for code that changes variables on one worker alone (assignments outside "
    "the strategy, random numbers from different seeds), and for bad hardware on the workers named."
)


class ChiefSave:
    """The chief's side of one save.

    Args:
      plan: The chief's plan; its share 0 is the chief's own.
      check: Which of the workers' copies are compared.
      what: The name of the save in messages: "ckpt-12 (step 1200)".
      moment: The moment of the chief's state.
    """

    def __init__(
        self,
        plan: Plan,
        check: Check = _NO_CHECK,
        what: str = "this save",
        moment: Moment = NOWHERE,
    ) -> None:
        self._plan = plan
        self._check = check
        self._what = what
        self._moment = moment
        self._warning = ""
        self._others = frozenset(range(1, plan.workers))
        self._ready: dict[int, str] = {}
        self._reports: dict[int, Report] = {}
        self._missing = frozenset(range(plan.workers))
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
            case AnnounceRendezvous(), Called(rendezvous):
                return self._then(
                    ReadTogether() if rendezvous.complete else AwaitAnswer(self._others)
                )
            case AnnounceRendezvous(), Lost(failure) | TimedOut(failure):
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
        return self._then(AnnounceRendezvous(Rendezvous(mine, complete)))

    def _take(self, report: Report) -> list[Action]:
        if report.worker in self._reports:
            raise ProtocolError(f"chief: second report of worker {report.worker}")
        if report.moment.relation(self._moment) is not Relation.SAME:
            text = moments.differ(f"worker {report.worker}", report.moment, self._moment)
            return self._fail(Failure("StateMismatchError", text, report.worker))
        wrong = unplanned(self._plan, report)
        if wrong:
            return self._fail(Failure("SaveFailedError", wrong, report.worker))
        unlike = replica_check.unlike(self._plan, report, self._check)
        if unlike:
            return self._fail(Failure("ConfigurationError", unlike, report.worker))
        self._reports[report.worker] = report
        self._missing -= {report.worker}
        if self._missing:
            return self._then(AwaitAnswer(self._missing))
        return self._compare()

    def _compare(self) -> list[Action]:
        """Goes on with all reports, unless the workers' copies differ and that is an error."""
        lopsided = unequal_states(self._in_order())
        if lopsided:
            return self._fail(Failure("StateMismatchError", lopsided))
        found = replica_check.compare(self._plan, self._reports, self._check)
        if found:
            among = len(replica_check.compared(self._plan, self._check))
            text = replica_check.explain(found, among, self._what)
            if self._check.mode == "error":
                failure = Failure(
                    "ReplicaMismatchError", f"{text}\n{_REPAIR}", replica_check.culprit(found)
                )
                return self._fail(failure)
            self._warning = f"{text}\nThe save goes on, with each value as its writer holds it."
        return self._then(Merge(self._in_order()))

    def _in_order(self) -> tuple[Report, ...]:
        return tuple(self._reports[worker] for worker in sorted(self._reports))

    def _explain(self, refusal: Refusal) -> Failure:
        if refusal.entries is None:
            return refusal.failure
        mine = self._plan.of_buckets(refusal.buckets)
        lines = planning.first_differences(mine, refusal.entries)
        text = refusal.failure.message + "".join(f"\n  {line}" for line in lines)
        return dataclasses.replace(refusal.failure, message=text)

    def _fail(self, failure: Failure) -> list[Action]:
        return self._then(Discard(), Tell(failure), Finish(failure))

    def _then(self, *actions: Action) -> list[Action]:
        self._last = actions[-1]
        return list(actions)
