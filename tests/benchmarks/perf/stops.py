"""How long a save stops training, and how long until it is complete: one process, or several."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import disk

from perf import ways
from perf.group import Group, PeerFailedError
from perf.lab import Lab

# TensorFlow's asynchronous save is not among them: it leaves out what was added after its first.
_CHANGED = ("distckpt-async", "distckpt", "tensorflow")


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Measures one process of each way: a big state, many variables, and a Keras model."""
    options = lab.options
    states = [ways.big(options.megabytes), ways.small(options.variables), *lab.keras()]
    return [_measure(lab, state, list(ways.WAYS), 1, "", options.rounds) for state in states]


def measure_workers(lab: Lab) -> list[dict[str, Any]]:
    """Measures two processes of each library that lets several share the writing."""
    names = [n for n, way in ways.WAYS.items() if way.library != "tensorflow"]
    state = ways.big(lab.options.megabytes)
    return [_measure(lab, state, names, 2, "library", lab.options.rounds)]


def _measure(
    lab: Lab, state: dict[str, Any], names: Sequence[str], count: int, by: str, rounds: int
) -> dict[str, Any]:
    lab.say(f"save: {state['title']}, {count} process(es) each …")
    with lab.groups(names, state, count, by=by) as groups:
        # To trace an update of thousands of variables takes TensorFlow and JAX minutes, all in all.
        update = len(state["entries"]) < 2000
        first = _round(lab, groups, list(groups), update)
        again = [n for n in groups if ways.WARM_UPS.get(n, 1) > 1]
        second = _round(lab, groups, again, update)
        slow = ways.slow(first)
        quick = [n for n in groups if n not in slow]

        def once() -> dict[str, Any]:
            return _round(lab, groups, quick, update)

        found = lab.rounds(f"saves, {state['title']}, {count} process(es)", once, rounds)
        found[0] |= slow
        return {
            "state": state["title"],
            "workers": count,
            "first": first,
            "second": second,
            "rounds": found,
            "changed": _changed(lab, groups, update) if count == 1 else {},
            "failed": lab.reasons(names),
        }


def _round(
    lab: Lab, groups: dict[str, Group], names: Sequence[str], update: bool
) -> dict[str, Any]:
    found = {}
    for name in random.sample(names, len(names)):
        if name in lab.failed:
            continue
        try:
            found[name] = sample(lab, groups[name], name, update)
        except PeerFailedError as error:
            lab.give_up(name, error)
    if found:
        lab.say(f"  {_brief(found)}")
    return found


def _changed(lab: Lab, groups: dict[str, Group], update: bool) -> dict[str, Any]:
    """Measures the saves after the objects that are saved have changed."""
    found = {}
    for name in _CHANGED:
        if name in groups and name not in lab.failed:
            try:
                groups[name].call("change")
                found[name] = sample(lab, groups[name], name, update)
            except PeerFailedError as error:
                lab.give_up(name, error)
    return found


def sample(lab: Lab, group: Group, name: str, update: bool = True) -> dict[str, Any]:
    """Saves once, with all processes of `group`, on a disk at rest."""
    settled = lab.settle()
    variant = ways.WAYS[name].variant
    if update:
        group.call("update")
    saves = group.call("save", variant=variant, start_at=time.monotonic() + 0.05, update=False)
    size = sum(disk.sizes(group.folder).values())
    group.call("discard")
    began = min(save["began"] for save in saves)

    def until(what: str) -> float:
        return float(max(save["began"] + save[what] for save in saves) - began)

    return {
        **{what: until(what) for what in ("returned", "stopped", "committed")},
        "bytes": size,
        "settled": settled,
    }


def _brief(found: dict[str, Any]) -> str:
    texts = (f"{n} {1000 * s['stopped']:.0f}/{1000 * s['committed']:.0f}" for n, s in found.items())
    return ", ".join(texts) + " ms"
