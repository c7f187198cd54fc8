"""How much a save in the background slows the training steps."""

from __future__ import annotations

import random
from typing import Any

from perf import ways
from perf.group import PeerFailedError
from perf.lab import Lab


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Trains, saves in the middle, and trains on, with each asynchronous way."""
    options = lab.options
    states = [ways.big(options.megabytes // 4), *lab.keras(), ways.small(options.variables)]
    return [_measure(lab, state) for state in states]


def _measure(lab: Lab, state: dict[str, Any]) -> dict[str, Any]:
    lab.say(f"pace: {state['title']} …")
    with lab.groups(ways.ASYNC, state) as groups:
        for group in groups.values():
            group.ask("train", steps=3)  # tracing and compiling, all at once
        for name, group in list(groups.items()):
            try:
                group.answers()
            except PeerFailedError as error:
                lab.give_up(name, error)
                del groups[name]
        rounds = []
        for number in range(lab.options.rounds + 1):
            found: dict[str, Any] = {}
            rounds.append(found)
            for name in random.sample(list(groups), len(groups)):
                try:
                    found[name] = _train(lab, groups[name], name)
                except PeerFailedError as error:
                    lab.give_up(name, error)
                    del groups[name]
            lab.say(f"  round {number}: {_brief(found)}")
        return {
            "state": state["title"],
            "rounds": rounds[1:],
            "failed": lab.reasons(ways.ASYNC),
        }


def _train(lab: Lab, group: Any, name: str) -> dict[str, Any]:
    lab.settle()
    steps = lab.options.steps
    variant = ways.WAYS[name].variant
    found: dict[str, Any] = group.call(
        "train_and_save", variant=variant, before=steps, after=steps
    )[0]
    group.call("discard")
    return found


def _brief(found: dict[str, Any]) -> str:
    return ", ".join(f"{n} {1000 * max(s['during']):.0f} ms" for n, s in found.items())
