"""Actions and events of the save protocol, in words."""

from __future__ import annotations

from distckpt.core.protocol import actions
from distckpt.core.protocol.messages import Refusal, Report
from distckpt.errors import Failure


def title(index: int) -> str:
    return "chief" if index == 0 else f"worker {index}"


def describe(action: actions.Action) -> str:
    match action:
        case actions.SendReady():
            return "say that it has come"
        case actions.AwaitReady(workers):
            return f"await the coming of {', '.join(title(w) for w in sorted(workers))}"
        case actions.AnnounceRendezvous(rendezvous):
            return (
                f"announce the rendezvous: {'complete' if rendezvous.complete else 'not complete'}"
            )
        case actions.ReadTogether():
            return "read together"
        case actions.AnnounceOpening(opening):
            return f"announce {opening.name}"
        case actions.SendAnswer(Report()):
            return "send its report"
        case actions.SendAnswer(Refusal(_, failure)):
            return f"refuse: {quote(failure)}"
        case actions.AwaitAnswer(workers):
            return f"await the answer of {', '.join(title(w) for w in sorted(workers))}"
        case actions.Merge(reports) | actions.Commit(reports):
            return f"{type(action).__name__.lower()} {len(reports)} shards"
        case actions.Tell(failure):
            return f"tell all: {'committed' if failure is None else quote(failure)}"
        case actions.Finish(failure):
            return "return the path" if failure is None else f"raise {quote(failure)}"
    return {
        actions.AwaitOpening: "await the opening",
        actions.AwaitOutcome: "await the outcome",
    }.get(type(action), type(action).__name__.lower())


def describe_event(event: actions.Event) -> str:
    match event:
        case actions.Ready(worker):
            return f"{title(worker)} has come"
        case actions.Called(rendezvous):
            return f"rendezvous {'complete' if rendezvous.complete else 'not complete'}"
        case actions.Answered(Report() as answer):
            return f"report of {title(answer.worker)}"
        case actions.Answered(Refusal() as answer):
            return f"refusal of {title(answer.worker)}"
        case actions.Told(outcome):
            return "committed" if outcome.failure is None else f"told: {outcome.failure.kind}"
        case actions.Failed(failure) | actions.Lost(failure) | actions.TimedOut(failure):
            return f"{type(event).__name__}: {quote(failure)}"
    return type(event).__name__.lower()


def quote(failure: Failure) -> str:
    return f"{failure.kind}: {failure.message}".replace("\n", "\n      ")
