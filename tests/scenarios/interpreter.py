"""Drives the save protocol's state machines by commands, and prints as text what happens.

As in etcd raft's ``rafttest``, a scenario file has commands, each followed by what it is expected
to print, and people review the text.
"""

from __future__ import annotations

from distckpt.core.protocol.write_plan import Entry, make_plan
from distckpt.errors import Failure

from .wording import title
from .world import COLLECTIVE, DISTORTIONS, ENTRIES, Actor, World


class Interpreter:
    """Understands the commands of scenario files.

    job N [collective] [survives]    N workers come to save(), with a state that takes a collective
                                     to read, with a store that survives the chief; comes first
    differ W name|directory VALUE    worker W has another name or directory (before anything runs)
    differ W entries KEY [D,D …]     worker W's KEY has other dimensions, or is missing
    fail W ACTION KIND TEXT          the action of worker W will fail
    distort W HOW                    the report of worker W will be wrong (see DISTORTIONS)
    hold W, release W                from now on nobody, or again everybody, sees W's messages
    run [W …] [until ACTION]         lets all (or these) continue, until their next action is ACTION
    crash W                          worker W dies
    expire W                         the deadline of worker W's current wait passes
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
    """Returns an actor that calls save() with another name, directory or state."""
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
