"""A job of state machines in one call of ``save()``, which take turns, one action each."""

from __future__ import annotations

import dataclasses
from collections import deque

from msgspec import structs

from distckpt.core.protocol import actions
from distckpt.core.protocol.chief_save import ChiefSave
from distckpt.core.protocol.messages import Opening, Outcome, Report, WrittenFile, WrittenPiece
from distckpt.core.protocol.worker_save import WorkerSave
from distckpt.core.protocol.write_plan import Entry, Plan
from distckpt.errors import Failure

from .wording import describe, describe_event, title

ENTRIES = (
    Entry("kernel", "float32", (96, 128), 96 * 128 * 4),
    Entry("bias", "float32", (128,), 512),
    Entry("iterations", "int64", (), 8),
    Entry("_CHECKPOINTABLE_OBJECT_GRAPH", "string", (), 16, chief_only=True),
)

# A metric: a variable with synchronization=ON_READ, which all must read together.
COLLECTIVE = Entry("total", "float32", (), 4, chief_only=True, collective=True)


def report(index: int, plan: Plan) -> Report:
    """Returns the report of a worker that writes all of its share."""
    pieces, offset = [], 0
    for piece in plan.shares[index]:
        entry, size = piece.entry, piece.nbytes
        row = (entry.key, entry.dtype, piece.shape, piece.spec, 0, offset, size, 0)
        pieces.append(WrittenPiece(*row))
        offset += size
    stem = f"shard-{index}"
    files = (WrittenFile(f"{stem}.data", offset),) if pieces else ()
    return Report(index, f"host-{index}", 100 + index, 0.0, (stem,), files, tuple(pieces))


DISTORTIONS = {
    "leaves out the first": lambda pieces: pieces[1:],
    "writes the first twice": lambda pieces: (pieces[0], *pieces),
    "writes another shape": lambda pieces: (
        structs.replace(pieces[0], shape=(1, 2)),
        *pieces[1:],
    ),
    "writes another type": lambda pieces: (
        structs.replace(pieces[0], dtype="float16"),
        *pieces[1:],
    ),
    "writes a foreign key": lambda pieces: (
        *pieces,
        structs.replace(pieces[0], key="foreign"),
    ),
    "writes the share of another": lambda pieces: (
        *pieces,
        structs.replace(pieces[0], spec="96 128 90,6:-"),
    ),
}

AWAITS = (actions.AwaitReady, actions.AwaitOpening, actions.AwaitAnswer, actions.AwaitOutcome)


class Actor:
    """One worker: its state machine, its next actions, and how it ended."""

    def __init__(self, index: int, plan: Plan, name: str, directory: str) -> None:
        self.index = index
        self.plan = plan
        self.name = name
        self.directory = directory
        self.machine = WorkerSave(index, name, directory, plan) if index else ChiefSave(plan)
        self.todo: deque[actions.Action] = deque(self.machine.start())
        self.performed: list[actions.Action] = []
        self.faults: dict[str, Failure] = {}
        self.distort: str | None = None
        self.held = False  # nobody sees what it publishes
        self.dead = False
        self.finished: actions.Finish | None = None

    @property
    def running(self) -> bool:
        return not self.dead and self.finished is None

    @property
    def next(self) -> str:
        return type(self.todo[0]).__name__


class World:
    """One call of ``save()`` of a job, without I/O and without a clock.

    All published messages are in one store. Deadlines pass when `expire` says so.

    Args:
      plans: For each worker, its plan.
      names: Workers that save another name than "ckpt-1".
      directories: Workers that were given another directory than "/d".
      store_survives: Whether what was published can be read after the chief's death.
    """

    def __init__(self, plans, names=None, directories=None, store_survives=False) -> None:
        self.actors = [
            Actor(i, plan, (names or {}).get(i, "ckpt-1"), (directories or {}).get(i, "/d"))
            for i, plan in enumerate(plans)
        ]
        self.store_survives = store_survives
        self.store: dict[str, tuple[int, object]] = {}
        self.reading: set[int] = set()  # the workers that take part in the collective
        self.committed = False
        self.log: list[str] = []

    # --- What commands do -----------------------------------------------------------------------

    def step(self, actor: Actor) -> bool:
        """Lets an actor perform one action; returns whether it could."""
        if not actor.running:
            return False
        action = actor.todo[0]
        waits = isinstance(action, (*AWAITS, actions.ReadTogether))
        event = self._look(actor, action) if waits else self._perform(actor, action)
        if waits and event is None:
            return False
        actor.todo.popleft()
        self._feed(actor, action, event)
        return True

    def run(self, actors=None) -> None:
        """Lets all take turns, one action each, until none can continue."""
        while self.turn(self.actors if actors is None else actors):
            pass

    def turn(self, actors) -> bool:
        """Lets each perform one action; returns whether any could."""
        moved = [self.step(actor) for actor in actors]
        return any(moved)

    def expire(self, actor: Actor) -> bool:
        """Lets the deadline of an actor's wait pass; returns whether it waited."""
        waits = actor.running and isinstance(actor.todo[0], AWAITS)
        if not waits or self._look(actor, actor.todo[0]) is not None:
            return False
        action = actor.todo.popleft()
        missing = sorted(getattr(action, "workers", [0]))
        text = f"given up: {', '.join(map(title, missing))} did not come."
        self._feed(
            actor, action, actions.TimedOut(Failure("DeadlineExceededError", text, missing[0]))
        )
        return True

    def expire_all(self) -> bool:
        """Lets the deadlines of all waits pass, the chief's first; returns whether any waited."""
        waited = [self.expire(actor) for actor in self.actors]
        return any(waited)

    def crash(self, actor: Actor) -> None:
        actor.dead = True
        self.log.append(f"{title(actor.index)}: dies")

    # --- How actions end -------------------------------------------------------------------------

    def _perform(self, actor: Actor, action: actions.Action) -> actions.Event | None:
        fault = actor.faults.pop(type(action).__name__, None)
        if fault is not None:
            return actions.Failed(fault)
        match action:
            case actions.SendReady(fingerprint):
                self._publish(actor, f"ready-{actor.index}", fingerprint)
            case actions.AnnounceRendezvous(rendezvous):
                self._publish(actor, "rendezvous", rendezvous)
                return actions.Called(self.store["rendezvous"][1])
            case actions.Open():
                return actions.Opened(
                    Opening("a1", actor.name, actor.directory, actor.plan.fingerprint, "token")
                )
            case actions.AnnounceOpening(opening):
                self._publish(actor, "opening", opening)
            case actions.Write():
                return actions.Written(self._report(actor))
            case actions.SendAnswer(answer):
                self._publish(actor, f"answer-{actor.index}", answer)
            case actions.Merge():
                return actions.Merged()
            case actions.Commit():
                self.committed = True
                return actions.Committed()
            case actions.Prune():
                return actions.Pruned()
            case actions.Tell(failure):
                self._publish(actor, "outcome", Outcome(failure, actor.name))
            case actions.Finish():
                actor.finished = action
        return None

    def _report(self, actor: Actor) -> Report:
        honest = report(actor.index, actor.plan)
        if actor.distort is None:
            return honest
        return dataclasses.replace(honest, pieces=DISTORTIONS[actor.distort](honest.pieces))

    def _publish(self, actor: Actor, key: str, message: object) -> None:
        self.store.setdefault(key, (actor.index, message))

    def _look(self, actor: Actor, action: actions.Action) -> actions.Event | None:
        """Returns the event that ends a wait, if there is one."""
        match action:
            case actions.ReadTogether():
                return self._collective(actor)
            case actions.AwaitReady(workers):
                return self._ready(workers) or self._answer(workers) or self._lost(workers)
            case actions.AwaitAnswer(workers):
                return self._answer(workers) or self._lost(workers)
        if self.actors[0].dead and not self.store_survives:
            return self._lost({0})
        keys = {"outcome": actions.Told}
        if isinstance(action, actions.AwaitOpening):
            keys |= {"rendezvous": actions.Called} if action.rendezvous else {}
            keys |= {"opening": actions.Opened}
        for key, event in keys.items():
            if (message := self._seen(key)) is not None:
                return event(message)
        return self._lost({0})

    def _ready(self, workers) -> actions.Event | None:
        for worker in sorted(workers):
            if (fingerprint := self._seen(f"ready-{worker}")) is not None:
                return actions.Ready(worker, fingerprint)
        return None

    def _answer(self, workers) -> actions.Event | None:
        for worker in sorted(workers):
            if (answer := self._seen(f"answer-{worker}")) is not None:
                return actions.Answered(answer)
        return None

    def _collective(self, actor: Actor) -> actions.Event | None:
        """A collective ends when all take part, and fails when one of them is dead."""
        if (fault := actor.faults.pop("ReadTogether", None)) is not None:
            return actions.Failed(fault)
        self.reading.add(actor.index)
        if len(self.reading) == len(self.actors):
            return actions.Read()
        dead = [a.index for a in self.actors if a.dead]
        if not dead:
            return None
        text = f"{title(dead[0])} died, says the collective."
        return actions.Failed(Failure("WorkerLostError", text, actor.index))

    def _seen(self, key: str) -> object | None:
        sender, message = self.store.get(key, (0, None))
        return None if self.actors[sender].held else message

    def _lost(self, of) -> actions.Lost | None:
        dead = sorted(w for w in of if self.actors[w].dead)
        if not dead:
            return None
        text = f"{', '.join(map(title, dead))} died."
        return actions.Lost(Failure("WorkerLostError", text, dead[0]))

    # --- Text -----------------------------------------------------------------------------------

    def _feed(self, actor: Actor, action: actions.Action, event: actions.Event | None) -> None:
        actor.performed.append(action)
        line = f"{title(actor.index)}: {self._describe(action)}"
        self.log.append(line if event is None else f"{line} -> {describe_event(event)}")
        if event is not None:
            actor.todo.extend(actor.machine.on(event))

    def standing(self) -> list[str]:
        """Returns a line for each actor that has not finished, with its next action."""
        return [
            f"({title(a.index)} is to {self._describe(a.todo[0])})"
            for a in self.actors
            if a.running
        ]

    def _describe(self, action: actions.Action) -> str:
        """Describes an action, without repeating a failure that all have been told."""
        told = self.store.get("outcome", (0, Outcome(None)))[1]
        if isinstance(action, actions.Finish) and action.failure and action.failure == told.failure:
            return f"raise {action.failure.kind}"
        return describe(action)
