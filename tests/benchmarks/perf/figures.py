"""From measurements to figures: ratios within a round, and what was expected of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from summary import Figure, Finding

from perf import scaling
from perf.memory import slope
from perf.ways import OURS

Result = dict[str, Any]


def figure(rounds: list[Result], way: str, of: Callable[[Result], float]) -> Figure | None:
    """Returns a figure of the samples of `way`; None if there are none."""
    numbers = [of(r[way]) for r in rounds if way in r]
    return Figure.of(numbers) if numbers else None


def ratio(rounds: list[Result], above: str, below: str, of: Callable[[Result], float]) -> Figure:
    """Returns the figure of a ratio of two ways, taken within each round.

    Raises:
      ValueError: There is no round with both.
    """
    both = [r for r in rounds if above in r and below in r]
    if not both:
        raise ValueError(f"{above} and {below} were never measured in one round")
    return Figure.of(of(r[above]) / of(r[below]) for r in both)


def seconds(what: str) -> Callable[[Result], float]:
    """Returns the function that takes `what` from a sample."""
    return lambda sample: float(sample[what])


def usual_step(sample: Result) -> float:
    """Returns the median step without a save, in seconds."""
    return statistics.median([*sample["before"], *sample["after"]])


def slowest_step(sample: Result) -> float:
    """Returns the slowest step from a save's beginning to its end, in usual steps."""
    return float(max(sample["during"]) / usual_step(sample))


def slowest_without(sample: Result) -> float:
    """Returns the slowest step without a save, in usual steps: what the machine does by itself."""
    return float(max(*sample["before"], *sample["after"]) / usual_step(sample))


def lost(sample: Result) -> float:
    """Returns by how many seconds a save delays training, in all: the stop, and slower steps."""
    during = sample["during"]
    return float(sample["stopped"] + sum(during) - len(during) * usual_step(sample))


def memory_shares(result: Result) -> list[float]:
    """Returns what a save takes of memory, for each worker, in shares of the state."""
    count = result["workers"]
    return [(p["peak"] - p["level"]) / (p["state"] / count) for p in result["peaks"]]


def workers(count: int) -> str:
    """Returns "1 worker", "2 workers", …."""
    return f"{count} worker" if count == 1 else f"{count} workers"


def findings(sections: Result) -> list[Finding]:
    """Returns what was expected of distckpt, with the numbers; of the sections that there are."""
    found: list[Finding] = []
    for name, expect in _EXPECTED.items():
        if sections.get(name):
            found += expect(sections[name])
    return found


def _of_stop(results: list[Result]) -> list[Finding]:
    return [*_of_big(results[0]), *_of_small(results[1])]


def _of_big(result: Result) -> list[Finding]:
    rounds, title = result["rounds"], result["state"]
    stopped, committed = seconds("stopped"), seconds("committed")
    found = []
    if held := figure(rounds, OURS, lambda s: 1000 * s["stopped"]):
        found.append(Finding(f"{title}: training stopped", held, ("≤", 5.0), " ms"))
    for below, above, of, text, bound in (
        (OURS, "distckpt", stopped, "blocking save ÷ asynchronous, stopped", ("≥", 100.0)),
        ("floor-durable", "distckpt", committed, "blocking save ÷ write and fsync", ("≤", 1.2)),
        ("floor", "distckpt-plain", committed, "blocking, not durable ÷ plain write", ("≤", 1.2)),
    ):
        if any(above in r and below in r for r in rounds):
            quotient = ratio(rounds, above, below, of)
            found.append(Finding(f"{title}: {text}", quotient, bound))
    return found


def _of_small(result: Result) -> list[Finding]:
    rounds, title = result["rounds"], result["state"]
    found = []
    if held := figure(rounds, OURS, lambda s: 1000 * s["stopped"]):
        found.append(Finding(f"{title}: training stopped", held, ("≤", 100.0), " ms"))
    if any("tensorflow" in r and OURS in r for r in rounds):
        quotient = ratio(rounds, "tensorflow", OURS, seconds("stopped"))
        text = f"{title}: `tf.train.Checkpoint.write` ÷ asynchronous, stopped"
        found.append(Finding(text, quotient, ("≥", 20.0)))
    return found


def _of_pace(results: list[Result]) -> list[Finding]:
    found = []
    for result in results[:-1]:  # the last one is small
        if slowest := figure(result["rounds"], OURS, slowest_step):
            text = f"{result['state']}: slowest step during a save ÷ usual step"
            found.append(Finding(text, slowest, ("≤", 3.0)))
    return found


def _of_memory(results: list[Result]) -> list[Finding]:
    found = []
    for result in results:
        wanted = result["way"] in (OURS, "distckpt") and result["state"] == results[0]["state"]
        if wanted and result["peaks"]:
            shares = Figure.of(memory_shares(result))
            worst = Figure(shares.most, shares.least, shares.most)
            kind = "asynchronous" if result["way"] == OURS else "blocking"
            text = f"{result['state']}, {workers(result['workers'])}, {kind}: memory ÷ own share"
            found.append(Finding(text, worst, ("≤", 1.1)))
    return found


def _of_leak(results: list[Result]) -> list[Finding]:
    found = []
    for result in results:
        if result["way"] == OURS and result["resident"]:
            grows = slope(result["resident"]) / 1024
            bound = result["bytes"] / 1000 / 1024
            text = f"{len(result['resident'])} saves, memory given back at once: growth of it, each"
            found.append(Finding(text, Figure(grows, grows, grows), ("≤", bound), " KiB"))
    return found


_EXPECTED: dict[str, Callable[[list[Result]], list[Finding]]] = {
    "stop": _of_stop,
    "pace": _of_pace,
    "memory": _of_memory,
    "leak": _of_leak,
    "scale": scaling.findings,
}
