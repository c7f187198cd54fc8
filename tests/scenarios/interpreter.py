"""Drives the save protocol's state machines by commands and tells as text what happens.

The habit is that of etcd raft's ``rafttest``: a scenario file has commands, each followed by what
it is expected to print, and people review the text. There is no I/O and no clock: a `World` has
one board of published messages, and deadlines pass when a command says so.
"""

from __future__ import annotations

import dataclasses
from collections import deque

from distckpt.core import protocol as p
from distckpt.core import steps
from distckpt.core.messages import Opening, Outcome, Refusal, Report, WrittenFile, WrittenPiece
from distckpt.core.plan import Entry, Plan, make_plan
from distckpt.errors import Failure

ENTRIES = (
    Entry("kernel", "float32", (96, 128), 96 * 128 * 4),
    Entry("bias", "float32", (128,), 512),
    Entry("iterations", "int64", (), 8),
    Entry("_CHECKPOINTABLE_OBJECT_GRAPH", "string", (), 16, chief_only=True),
)
# A metric: a variable with synchronization=ON_READ, which all must read together.
COLLECTIVE = Entry("total", "float32", (), 4, chief_only=True, collective=True)


def title(index: int) -> str:
    return "chief" if index == 0 else f"worker {index}"


def report(index: int, plan: Plan) -> Report:
    """Returns what a worker that writes all of its share reports."""
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
        pieces[0]._replace(shape=(1, 2)),
        *pieces[1:],
    ),
    "writes another type": lambda pieces: (
        pieces[0]._replace(dtype="float16"),
        *pieces[1:],
    ),
    "writes a foreign key": lambda pieces: (
        *pieces,
        pieces[0]._replace(key="foreign"),
    ),
    "writes the share of another": lambda pieces: (
        *pieces,
        pieces[0]._replace(spec="96 128 90,6:-"),
    ),
}


AWAITS = (steps.AwaitReady, steps.AwaitOpening, steps.AwaitAnswer, steps.AwaitOutcome)


class Actor:
    """One worker: its machine, what it is to do next, and how it ended."""

    def __init__(self, index: int, plan: Plan, name: str, directory: str) -> None:
        self.index = index
        self.plan = plan
        self.name = name
        self.directory = directory
        self.machine = p.WorkerSave(index, name, directory, plan) if index else p.ChiefSave(plan)
        self.todo: deque[steps.Action] = deque(self.machine.start())
        self.performed: list[steps.Action] = []
        self.faults: dict[str, Failure] = {}
        self.distort: str | None = None
        self.held = False  # nobody sees what it publishes
        self.dead = False
        self.finished: steps.Finish | None = None

    @property
    def running(self) -> bool:
        return not self.dead and self.finished is None

    @property
    def next(self) -> str:
        return type(self.todo[0]).__name__


class World:
    """One call of ``save()`` of a job.

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
        self.board: dict[str, tuple[int, object]] = {}
        self.reading: set[int] = set()  # who takes part in the collective
        self.committed = False
        self.log: list[str] = []

    # --- What commands do -----------------------------------------------------------------------

    def step(self, actor: Actor) -> bool:
        """Lets an actor perform one action; returns whether it could."""
        if not actor.running:
            return False
        action = actor.todo[0]
        waits = isinstance(action, (*AWAITS, steps.ReadTogether))
        event = self._look(actor, action) if waits else self._perform(actor, action)
        if waits and event is None:
            return False
        actor.todo.popleft()
        self._feed(actor, action, event)
        return True

    def run(self, actors=None) -> None:
        """Lets all take turns, one action each, until nobody can go on."""
        while self.turn(self.actors if actors is None else actors):
            pass

    def turn(self, actors) -> bool:
        """Lets each perform one action; returns whether anybody could."""
        moved = [self.step(actor) for actor in actors]
        return any(moved)

    def expire(self, actor: Actor) -> bool:
        """Lets the deadline of what an actor waits for pass; returns whether it waited."""
        waits = actor.running and isinstance(actor.todo[0], AWAITS)
        if not waits or self._look(actor, actor.todo[0]) is not None:
            return False
        action = actor.todo.popleft()
        missing = sorted(getattr(action, "workers", [0]))
        text = f"given up: {', '.join(map(title, missing))} did not come."
        self._feed(
            actor, action, steps.TimedOut(Failure("DeadlineExceededError", text, missing[0]))
        )
        return True

    def expire_all(self) -> bool:
        """Lets the deadlines of all that wait pass, the chief's first; returns whether any did."""
        waited = [self.expire(actor) for actor in self.actors]
        return any(waited)

    def crash(self, actor: Actor) -> None:
        actor.dead = True
        self.log.append(f"{title(actor.index)}: dies")

    # --- The world's side of actions ------------------------------------------------------------

    def _perform(self, actor: Actor, action: steps.Action) -> steps.Event | None:
        fault = actor.faults.pop(type(action).__name__, None)
        if fault is not None:
            return steps.Failed(fault)
        match action:
            case steps.SendReady(fingerprint):
                self._publish(actor, f"ready-{actor.index}", fingerprint)
            case steps.AnnounceRoll(roll):
                self._publish(actor, "roll", roll)
                return steps.Called(self.board["roll"][1])
            case steps.Open():
                return steps.Opened(
                    Opening("a1", actor.name, actor.directory, actor.plan.fingerprint, "token")
                )
            case steps.AnnounceOpening(opening):
                self._publish(actor, "opening", opening)
            case steps.Write():
                return steps.Written(self._report(actor))
            case steps.SendAnswer(answer):
                self._publish(actor, f"answer-{actor.index}", answer)
            case steps.Merge():
                return steps.Merged()
            case steps.Commit():
                self.committed = True
                return steps.Committed()
            case steps.Prune():
                return steps.Pruned()
            case steps.Tell(failure):
                self._publish(actor, "outcome", Outcome(failure, actor.name))
            case steps.Finish():
                actor.finished = action
        return None

    def _report(self, actor: Actor) -> Report:
        honest = report(actor.index, actor.plan)
        if actor.distort is None:
            return honest
        return dataclasses.replace(honest, pieces=DISTORTIONS[actor.distort](honest.pieces))

    def _publish(self, actor: Actor, key: str, message: object) -> None:
        self.board.setdefault(key, (actor.index, message))

    def _look(self, actor: Actor, action: steps.Action) -> steps.Event | None:
        """Returns what ends the wait, if it is there."""
        match action:
            case steps.ReadTogether():
                return self._collective(actor)
            case steps.AwaitReady(workers):
                return self._ready(workers) or self._answer(workers) or self._lost(workers)
            case steps.AwaitAnswer(workers):
                return self._answer(workers) or self._lost(workers)
        if self.actors[0].dead and not self.store_survives:
            return self._lost({0})
        keys = {"outcome": steps.Told}
        if isinstance(action, steps.AwaitOpening):
            keys |= {"roll": steps.Called} if action.roll else {}
            keys |= {"opening": steps.Opened}
        for key, event in keys.items():
            if (message := self._seen(key)) is not None:
                return event(message)
        return self._lost({0})

    def _ready(self, workers) -> steps.Event | None:
        for worker in sorted(workers):
            if (fingerprint := self._seen(f"ready-{worker}")) is not None:
                return steps.Ready(worker, fingerprint)
        return None

    def _answer(self, workers) -> steps.Event | None:
        for worker in sorted(workers):
            if (answer := self._seen(f"answer-{worker}")) is not None:
                return steps.Answered(answer)
        return None

    def _collective(self, actor: Actor) -> steps.Event | None:
        """A collective ends when all take part, fails when one is dead, and else never ends."""
        if (fault := actor.faults.pop("ReadTogether", None)) is not None:
            return steps.Failed(fault)
        self.reading.add(actor.index)
        if len(self.reading) == len(self.actors):
            return steps.Read()
        dead = [a.index for a in self.actors if a.dead]
        if not dead:
            return None
        text = f"{title(dead[0])} died, says the collective."
        return steps.Failed(Failure("WorkerLostError", text, actor.index))

    def _seen(self, key: str) -> object | None:
        sender, message = self.board.get(key, (0, None))
        return None if self.actors[sender].held else message

    def _lost(self, of) -> steps.Lost | None:
        dead = sorted(w for w in of if self.actors[w].dead)
        if not dead:
            return None
        text = f"{', '.join(map(title, dead))} died."
        return steps.Lost(Failure("WorkerLostError", text, dead[0]))

    # --- Text -----------------------------------------------------------------------------------

    def _feed(self, actor: Actor, action: steps.Action, event: steps.Event | None) -> None:
        actor.performed.append(action)
        line = f"{title(actor.index)}: {self._describe(action)}"
        self.log.append(line if event is None else f"{line} -> {describe_event(event)}")
        if event is not None:
            actor.todo.extend(actor.machine.on(event))

    def standing(self) -> list[str]:
        """Returns a line for each that has not finished, and what it waits for."""
        return [
            f"({title(a.index)} is to {self._describe(a.todo[0])})"
            for a in self.actors
            if a.running
        ]

    def _describe(self, action: steps.Action) -> str:
        """Describes an action; a text that all have been told is not repeated."""
        told = self.board.get("outcome", (0, Outcome(None)))[1]
        if isinstance(action, steps.Finish) and action.failure and action.failure == told.failure:
            return f"raise {action.failure.kind}"
        return describe(action)


def describe(action: steps.Action) -> str:
    match action:
        case steps.SendReady():
            return "say that it has come"
        case steps.AwaitReady(workers):
            return f"await the coming of {', '.join(title(w) for w in sorted(workers))}"
        case steps.AnnounceRoll(roll):
            return f"call the roll: {'complete' if roll.complete else 'not complete'}"
        case steps.ReadTogether():
            return "read together"
        case steps.AnnounceOpening(opening):
            return f"announce {opening.name}"
        case steps.SendAnswer(Report()):
            return "send its report"
        case steps.SendAnswer(Refusal(_, failure)):
            return f"refuse: {quote(failure)}"
        case steps.AwaitAnswer(workers):
            return f"await the answer of {', '.join(title(w) for w in sorted(workers))}"
        case steps.Merge(reports) | steps.Commit(reports):
            return f"{type(action).__name__.lower()} {len(reports)} shards"
        case steps.Tell(failure):
            return f"tell all: {'committed' if failure is None else quote(failure)}"
        case steps.Finish(failure):
            return "return the path" if failure is None else f"raise {quote(failure)}"
    return {steps.AwaitOpening: "await the opening", steps.AwaitOutcome: "await the outcome"}.get(
        type(action), type(action).__name__.lower()
    )


def describe_event(event: steps.Event) -> str:
    match event:
        case steps.Ready(worker):
            return f"{title(worker)} has come"
        case steps.Called(roll):
            return f"roll {'complete' if roll.complete else 'not complete'}"
        case steps.Answered(Report() as answer):
            return f"report of {title(answer.worker)}"
        case steps.Answered(Refusal() as answer):
            return f"refusal of {title(answer.worker)}"
        case steps.Told(outcome):
            return "committed" if outcome.failure is None else f"told: {outcome.failure.kind}"
        case steps.Failed(failure) | steps.Lost(failure) | steps.TimedOut(failure):
            return f"{type(event).__name__}: {quote(failure)}"
    return type(event).__name__.lower()


def quote(failure: Failure) -> str:
    return f"{failure.kind}: {failure.message}".replace("\n", "\n      ")


# --- Commands -----------------------------------------------------------------------------------


class Interpreter:
    """Understands the commands of scenario files.

    job N [collective] [survives]    N workers come to save(), with a state that takes a collective
                                     to read, with a board that survives the chief; comes first
    differ W name|directory VALUE    worker W was given something else (before anything runs)
    differ W entries KEY [D,D …]     worker W's KEY has other dimensions, or is missing
    fail W ACTION KIND TEXT          the action of worker W will fail
    distort W HOW                    the report of worker W will be wrong (see DISTORTIONS)
    hold W, release W                from now on nobody, or again everybody, sees W's messages
    run [W …] [until ACTION]         lets all (or these) go on; until they are to do ACTION
    crash W                          worker W dies
    expire W                         the deadline of what worker W waits for passes
    """

    def __init__(self) -> None:
        self._world: World | None = None

    def execute(self, command: str) -> str:
        """Returns what a command prints."""
        verb, *words = command.split()
        if verb == "job":
            entries = (*ENTRIES, COLLECTIVE) if "collective" in words else ENTRIES
            plans = [make_plan(entries, int(words[0]))] * int(words[0])
            self._world = World(plans, store_survives="survives" in words)
            return "ok"
        world = self._world
        assert world is not None, "a scenario begins with job"
        world.log.clear()
        if verb == "run":
            self._run(world, words)
            return "\n".join(world.log + world.standing()) or "nothing happens"
        actor = world.actors[int(words[0])]
        match verb:
            case "differ":
                world.actors[actor.index] = differing(world, actor, words[1], words[2:])
            case "fail":
                text = " ".join(words[3:])
                actor.faults[words[1]] = Failure(words[2], text, actor.index)
            case "distort":
                actor.distort = " ".join(words[1:])
                assert actor.distort in DISTORTIONS
            case "hold" | "release":
                actor.held = verb == "hold"
            case "crash":
                world.crash(actor)
            case "expire":
                assert world.expire(actor), f"{title(actor.index)} does not wait"
            case _:
                raise ValueError(f"no such command: {command}")
        return "\n".join(world.log) or "ok"

    def _run(self, world: World, words: list[str]) -> None:
        until = words[words.index("until") + 1] if "until" in words else None
        names = [w for w in words if w.isdecimal()]
        chosen = [world.actors[int(w)] for w in names] or world.actors
        moving = True
        while moving:
            moving = False
            for actor in chosen:
                if actor.running and actor.next != until:
                    moving |= world.step(actor)


def differing(world: World, actor: Actor, what: str, value: list[str]) -> Actor:
    """Returns an actor that came to save() with something else."""
    name, directory, plan = actor.name, actor.directory, actor.plan
    if what == "name":
        name = value[0]
    elif what == "directory":
        directory = value[0]
    else:
        shape = tuple(int(d) for d in value[1].split(",")) if len(value) > 1 else None
        entries = [e for e in plan.entries if e.key != value[0]]
        if shape is not None:
            entries.append(Entry(value[0], "float32", shape, 4 * shape[0]))
        plan = make_plan(entries, len(world.actors))
    return Actor(actor.index, plan, name, directory)
