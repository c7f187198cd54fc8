"""How much processor time other processes take, and which rounds count."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from regression.comparison import Round

DISTURBED = 0.3  # of one core


class Load(NamedTuple):
    """Processor time used up to a moment.

    Attributes:
      clock: The monotonic clock, in seconds.
      busy: Seconds that all processors together have worked.
      own: Seconds that this benchmark's processes have taken of them.
    """

    clock: float
    busy: float
    own: float

    @classmethod
    def now(cls, pids: Iterable[int]) -> Load:
        """Returns the present moment; `pids` are the benchmark's processes."""
        ticks = os.sysconf("SC_CLK_TCK")
        own = sum(own_ticks(Path(f"/proc/{pid}/stat").read_text()) for pid in pids)
        busy = busy_ticks(Path("/proc/stat").read_text())
        return cls(time.monotonic(), busy / ticks, own / ticks)

    def others_until(self, later: Load) -> float:
        """Returns what other processes took from this moment to `later`, in cores."""
        others = (later.busy - self.busy) - (later.own - self.own)
        return max(0.0, others) / (later.clock - self.clock)


def busy_ticks(text: str) -> int:
    """Returns how long processors have worked, according to /proc/stat."""
    words = text.partition("\n")[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    return user + nice + system + irq + softirq + steal  # guests are in "user"


def own_ticks(text: str) -> int:
    """Returns how long a process and its ended children worked, according to /proc/PID/stat."""
    after_name = text.rpartition(")")[2].split()  # a name may contain spaces and brackets
    return sum(map(int, after_name[11:15]))


def enough(rounds: Sequence[Round], wanted: int) -> bool:
    """Returns whether no more rounds are needed; at most `wanted` extra rounds are run."""
    quiet = sum(not disturbed(one) for one in rounds)
    return quiet >= wanted or len(rounds) >= 2 * wanted


def disturbed(one: Round) -> bool:
    """Returns whether other processes took too much in a round."""
    return one.others > DISTURBED


def quietest(rounds: Sequence[Round], wanted: int) -> list[Round]:
    """Returns the rounds that count, in order: those that were disturbed least."""
    least = sorted(range(len(rounds)), key=lambda number: rounds[number].others)[:wanted]
    return [rounds[number] for number in sorted(least)]


def describe(rounds: Sequence[Round], counting: Sequence[Round]) -> str:
    """Returns how quiet the machine was."""
    shares = ", ".join(f"{100 * one.others:.0f} %" for one in rounds)
    count = sum(map(disturbed, rounds))
    lines = [
        f"Other processes took {shares} of a core; {count} of {len(rounds)} rounds were disturbed "
        f"(more than {100 * DISTURBED:.0f} %)."
    ]
    if used := sum(map(disturbed, counting)):
        lines.append(f"Note: {used} of the {len(counting)} rounds that count were disturbed.")
    return "\n".join(lines)
