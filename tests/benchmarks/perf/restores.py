"""How long a restore takes, in a process that has just been started; and whether it is right."""

from __future__ import annotations

import random
from typing import Any

from perf import ways
from perf.group import PeerFailedError
from perf.lab import Lab

# {what restores: (which way has saved, the variant that restores)}
RESTORES = {
    "distckpt": ("distckpt-async", "async"),
    "distckpt-unverified": ("distckpt-async", "unverified"),
    "tensorflow": ("tensorflow-async", "async"),
    "orbax": ("orbax-async", "async"),
    "torch": ("torch-async", "async"),
    "floor": ("floor", "plain"),
}
LABELS = {
    "distckpt": "distckpt, verified",
    "distckpt-unverified": "distckpt, `verify_on_restore=False`",
    "tensorflow": "TensorFlow",
    "orbax": "Orbax",
    "torch": "PyTorch DCP",
    "floor": "plain read",
}


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Restores the big state, and the one of many variables."""
    options = lab.options
    return [
        _measure(lab, ways.big(options.megabytes), min(3, options.rounds)),
        _measure(lab, ways.small(options.variables), 1),
    ]


def _measure(lab: Lab, state: dict[str, Any], times: int) -> dict[str, Any]:
    lab.say(f"restore: {state['title']} …")
    folder = f"restore-{len(state['entries'])}"
    names = list(dict.fromkeys(saver for saver, _ in RESTORES.values()))
    wanted = _save(lab, state, names, folder)
    failed = {r: lab.reasons(names)[s] for r, (s, _) in RESTORES.items() if s in lab.reasons(names)}

    def once() -> dict[str, float]:
        found: dict[str, float] = {}
        todo = [r for r, (saver, _) in RESTORES.items() if saver in wanted and r not in failed]
        for restorer in random.sample(todo, len(todo)):
            try:
                found[restorer] = _restore(lab, state, restorer, folder, wanted)
            except PeerFailedError as error:
                lab.give_up(restorer, error)
                failed[restorer] = lab.failed[restorer]
        lab.say(f"  {found}")
        return found

    rounds = lab.rounds(f"restore, {state['title']}", once, times)
    return {"state": state["title"], "rounds": rounds, "failed": failed}


def _save(lab: Lab, state: dict[str, Any], names: list[str], folder: str) -> dict[str, float]:
    """Saves with each way, changing the state meanwhile; returns what a restore must yield."""
    wanted = {}
    update = len(state["entries"]) < 2000  # see `stops`
    with lab.groups(names, state, folder=folder) as groups:
        for name, group in groups.items():
            try:
                wanted[name] = group.call("fingerprint")[0]
                variant = ways.WAYS[name].variant
                group.call("save", variant=variant, update=False, wait=False)
                if update:
                    group.call("update")
                group.call("wait")
            except PeerFailedError as error:
                lab.give_up(name, error)
    return wanted


def _restore(
    lab: Lab, state: dict[str, Any], restorer: str, folder: str, wanted: dict[str, float]
) -> float:
    saver, variant = RESTORES[restorer]
    with lab.groups([saver], state, fresh=True, folder=folder) as groups:
        if saver not in groups:
            raise PeerFailedError(lab.reasons([saver]).get(saver, "did not start"))
        seconds: float = groups[saver].call("restore", variant=variant, number=1)[0]
        if groups[saver].call("fingerprint")[0] != wanted[saver]:
            raise PeerFailedError("restores other numbers than it has saved")
    return seconds
