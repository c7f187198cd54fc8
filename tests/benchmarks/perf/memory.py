"""How much memory a save takes, and whether it comes back."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from perf import ways
from perf.group import PeerFailedError
from perf.lab import Lab

_SAVES = 3
_WITHOUT = ("floor", "floor-durable", "distckpt-plain")
# The C library then gives back all but small blocks at once: what stays is what somebody holds.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Measures the peak of each way in a process of its own; distckpt with four workers, too."""
    state = ways.big(lab.options.megabytes)
    found = [_peaks(lab, state, name, 1) for name in ways.WAYS if name not in _WITHOUT]
    found += [_peaks(lab, state, name, 4) for name in ("distckpt", "distckpt-async")]
    return [*found, *(_peaks(lab, keras, name, 1) for keras in lab.keras() for name in ways.ASYNC)]


def _peaks(lab: Lab, state: dict[str, Any], name: str, count: int) -> dict[str, Any]:
    lab.say(f"memory: {name}, {count} process(es) …")
    peaks: list[dict[str, float]] = []
    with lab.groups([name], state, count) as groups:
        for group in groups.values():
            try:
                variant = ways.WAYS[name].variant
                peaks = group.call("memory", variant=variant, saves=_SAVES)
            except PeerFailedError as error:
                lab.give_up(name, error)
    return {
        "state": state["title"],
        "way": name,
        "workers": count,
        "peaks": peaks,
        "failed": lab.reasons([name]),
    }


def measure_many(lab: Lab) -> list[dict[str, Any]]:
    """Measures the memory after each of many asynchronous saves, in a process of its own."""
    state = ways.big(max(1, lab.options.megabytes // 16), 64)
    nbytes = sum(4 * math.prod(shape) for _, shape in state["entries"])
    found = []
    for name in ways.ASYNC:
        lab.say(f"leak: {name} …")
        resident: list[int] = []
        with lab.groups([name], state, variables=_GIVE_BACK) as groups:
            for group in groups.values():
                try:
                    times = lab.options.saves
                    resident = group.call("repeat", variant=ways.WAYS[name].variant, times=times)[0]
                except PeerFailedError as error:
                    lab.give_up(name, error)
        found.append(
            {
                "state": state["title"],
                "way": name,
                "bytes": nbytes,
                "resident": resident,
                "failed": lab.reasons([name]),
            }
        )
    return found


def slope(resident: Sequence[float]) -> float:
    """Returns by how much `resident` grows from one to the next: the median of all pairs' slopes.

    The first fifth does not count: there, buffers are made that are then kept.
    """
    later = list(resident)[len(resident) // 5 :]
    pairs = [
        (later[b] - later[a]) / (b - a) for a in range(len(later)) for b in range(a + 1, len(later))
    ]
    return statistics.median(pairs)
