"""How much a save in the background slows the training steps."""

from __future__ import annotations

import random
from typing import Any

from perf import ways
from perf.group import Group, PeerFailedError
from perf.lab import Lab


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Trains, saves in the middle, and trains on, with each asynchronous way."""
    options = lab.options
    states = [ways.big(options.megabytes // 4), ways.small(options.variables)]
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
        first = _round(lab, groups, list(groups))
        _round(lab, groups, [n for n in groups if ways.WARM_UPS.get(n, 1) > 1])
        slow = ways.slow(first)

        def once() -> dict[str, Any]:
            return _round(lab, groups, [n for n in groups if n not in slow])

        rounds = lab.rounds(f"steps, {state['title']}", once, lab.options.rounds)
        rounds[0] |= slow
        return {
            "state": state["title"],
            "rounds": rounds,
            "failed": lab.reasons(ways.ASYNC),
        }


def _round(lab: Lab, groups: dict[str, Group], names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in random.sample(names, len(names)):
        try:
            found[name] = _train(lab, groups[name], name)
        except PeerFailedError as error:
            lab.give_up(name, error)
            del groups[name]
    if found:
        lab.say(f"  {_brief(found)}")
    return found


def _train(lab: Lab, group: Group, name: str) -> dict[str, Any]:
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
