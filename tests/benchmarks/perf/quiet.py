"""How quiet the machine was: what others took of it, and how evenly a fixed loop ran."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from regression.other_load import DISTURBED, busy_ticks, own_ticks

# Above one of these a round is disturbed.
OTHERS = DISTURBED  # of one core
STEAL = 0.05  # of one core: the hypervisor gave it to others
SPREAD = 1.25  # the average of equal loops, as a multiple of the fastest

_LOOPS, _TURNS = 15, 60_000
_KERNEL_THREADS = 2  # the process number of their parent

T = TypeVar("T")


class Quiet(NamedTuple):
    """How quiet the machine was for a while.

    Attributes:
      others: What other processes took, stolen time included, in cores.
      steal: What the hypervisor gave to others, in cores.
      spread: The average time of equal loops ÷ the least.
    """

    others: float
    steal: float
    spread: float

    @property
    def disturbance(self) -> float:
        """Returns how far the worst of the three is: above 1, the round is disturbed."""
        return max(self.others / OTHERS, self.steal / STEAL, (self.spread - 1) / (SPREAD - 1))

    @property
    def disturbed(self) -> bool:
        """Whether a measurement made meanwhile should not count."""
        return self.disturbance > 1

    def __str__(self) -> str:
        return f"others {self.others:.2f} cores, steal {self.steal:.2f}, spread {self.spread:.2f}"


class Measured(NamedTuple, Generic[T]):
    """A measurement, and how quiet the machine was meanwhile."""

    value: T
    quiet: Quiet


class Watch:
    """Observes the machine from its construction to `stop`."""

    def __init__(self) -> None:
        self._loops = loops()
        self._clock = time.monotonic()
        self._before = _Ticks.now()

    def stop(self) -> Quiet:
        """Returns how quiet the machine was."""
        after, seconds = _Ticks.now(), time.monotonic() - self._clock
        return _quiet(self._before, after, seconds, [*self._loops, *loops()])


class _Ticks(NamedTuple):
    """Seconds of all processors up to a moment."""

    busy: float
    own: float
    steal: float

    @classmethod
    def now(cls) -> _Ticks:
        hertz = os.sysconf("SC_CLK_TCK")
        text = Path("/proc/stat").read_text()
        stats = _stats()
        # The kernel's threads write for whoever has asked them to: here, mostly this benchmark.
        pids = {*family(stats, os.getpid()), *family(stats, _KERNEL_THREADS)}
        own = sum(own_ticks(stats[pid]) for pid in pids if pid in stats)
        return cls(busy_ticks(text) / hertz, own / hertz, steal_ticks(text) / hertz)


def _quiet(before: _Ticks, after: _Ticks, seconds: float, times: Sequence[float]) -> Quiet:
    others = (after.busy - before.busy) - (after.own - before.own)
    return Quiet(
        max(0.0, others) / seconds,
        (after.steal - before.steal) / seconds,
        statistics.fmean(times) / min(times),
    )


def loops() -> list[float]:
    """Returns how long equal loops take, in seconds."""
    found = []
    for _ in range(_LOOPS):
        began = time.perf_counter()
        for number in range(_TURNS):
            number * number
        found.append(time.perf_counter() - began)
    return found


def steal_ticks(text: str) -> int:
    """Returns what the hypervisor gave to others, according to /proc/stat."""
    return int(text.partition("\n")[0].split()[8])


def family(stats: dict[int, str], root: int) -> set[int]:
    """Returns `root` and all processes below it; `stats` are their lines of /proc/PID/stat."""
    parents = {pid: int(text.rpartition(")")[2].split()[1]) for pid, text in stats.items()}
    found, size = {root}, 0
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def _stats() -> dict[int, str]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found


def repeated(
    measure: Callable[[], T],
    wanted: int,
    *,
    watch: Callable[[], Watch] = Watch,
    spare: Callable[[], float] = lambda: math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> list[Measured[T]]:
    """Measures until `wanted` rounds were quiet, at most twice as often as `wanted`.

    Args:
      measure: Makes one round.
      wanted: How many rounds are to count.
      watch: Begins to observe the machine.
      spare: Returns how many seconds may be spent on extra rounds. One begins only if that is
        enough for two rounds as long as the last one.
      clock: Returns the seconds of a monotonic clock.
    """
    found: list[Measured[T]] = []
    took = 0.0
    while len(found) < wanted or (not enough(found, wanted) and spare() > 2 * took):
        began, watching = clock(), watch()
        value = measure()
        found.append(Measured(value, watching.stop()))
        took = clock() - began
    return found


def enough(found: Sequence[Measured[T]], wanted: int) -> bool:
    """Returns whether no more rounds are needed."""
    quiet = sum(not one.quiet.disturbed for one in found)
    return quiet >= wanted or len(found) >= 2 * wanted


def quietest(found: Sequence[Measured[T]], wanted: int) -> list[Measured[T]]:
    """Returns the rounds that count, in order: those that were disturbed least."""
    order = sorted(range(len(found)), key=lambda number: found[number].quiet.disturbance)
    return [found[number] for number in sorted(order[:wanted])]


def summary(counting: Iterable[tuple[str, Quiet]], rounds: int) -> str:
    """Returns how quiet the machine was in the rounds that count, of `rounds` in all."""
    rows = list(counting)
    if not rows:
        return "Nothing was measured."
    worst = [max(getattr(quiet, field) for _, quiet in rows) for field in Quiet._fields]
    loud = [name for name, quiet in rows if quiet.disturbed]
    lines = [
        f"{len(rows)} rounds count, of {rounds}. In the loudest of them other processes took "
        f"{worst[0]:.2f} cores, the hypervisor {worst[1]:.2f}; the average of equal loops was "
        f"{worst[2]:.2f} times the fastest.",
        f"A round is disturbed above {OTHERS} cores, {STEAL} or {SPREAD}. "
        f"Disturbed, although they count: {len(loud)} of {len(rows)}.",
    ]
    if loud:
        lines.append(f"Disturbed: {'; '.join(dict.fromkeys(loud))}.")
    return "\n".join(lines)
