"""Tells slow from stuck, and says of each worker that is waited for how far it has got.

Slow is who has made progress not long ago: more bytes, or another phase. Stuck is who has come and
makes none; its process may well be alive. That it is dead, the coordination engine says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from distckpt.core.messages import Progress

_MIB = 2**20
_SHOWN = 8  # workers that a text describes one by one


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long one call waits for others. All in seconds.

    Attributes:
      seconds: Its deadline.
      factor: By how much it is extended at the most, while all who are waited for are only slow.
    """

    seconds: float
    factor: float = 1.0

    @property
    def limit(self) -> float:
        """After which it is given up, however slow or busy the others are."""
        return self.factor * self.seconds

    @property
    def interval(self) -> float:
        """Between two words of one worker on its progress; before the first, too."""
        return min(5.0, self.seconds / 40)

    @property
    def stall(self) -> float:
        """Without progress, after which a worker counts as stuck."""
        return max(5.0, self.seconds / 10)

    @property
    def grace(self) -> float:
        """That a worker allows the chief beyond its deadline, to say its last word."""
        return 0.1 * self.seconds + 5.0


@dataclasses.dataclass(frozen=True)
class Standing:
    """What is known of a worker that is waited for.

    Attributes:
      name: What people call it.
      joined: Whether it has ever been seen in this job.
      came: Whether it has come to this call.
      progress: Its last word on how far it has got, if there was one,
      ago: so many seconds ago.
    """

    name: str
    joined: bool = True
    came: bool = False
    progress: Progress | None = None
    ago: float = 0.0

    def is_slow(self, patience: Patience) -> bool:
        """Whether it is worth while to go on waiting for it."""
        return self.progress is not None and self.ago < patience.stall

    def describe(self, patience: Patience) -> str:
        """Returns a clause: "worker 1 (node-7, pid 41) is stuck: writing, …"."""
        if self.progress is None:
            return f"{self.name} {self._without_progress()}"
        word = "slow" if self.is_slow(patience) else "stuck"
        where = f"{self.name} ({self.progress.host}, pid {self.progress.pid})"
        return f"{where} is {word}: {what(self.progress)}, last progress {self.ago:.0f} s ago"

    def _without_progress(self) -> str:
        if self.came:
            return "came, but did not finish its part, nor say how far it has got"
        if not self.joined:
            return "never came, and has not been seen in this job at all: has it been started?"
        return "never came"


def what(progress: Progress) -> str:
    """Returns what a worker does, and how much of it is done: "writing, 3.0 of 8.0 MiB"."""
    if not progress.total:
        return progress.phase
    done, total = min(progress.done, progress.total) / _MIB, progress.total / _MIB
    return f"{progress.phase}, {done:.1f} of {total:.1f} MiB"


def explain(missing: Sequence[Standing], finished: Iterable[str], patience: Patience) -> str:
    """Returns who has not done its part, and who has.

    Args:
      missing: Those that are waited for.
      finished: Names of the others, as far as they are known to have done theirs.
      patience: Of the call.
    """
    clauses = [standing.describe(patience) for standing in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        clauses.append(f"and {len(missing) - _SHOWN} more have not done their part")
    done = list(finished)
    if done:
        names = ", ".join(done[:_SHOWN])
        more = f" and {len(done) - _SHOWN} more" if len(done) > _SHOWN else ""
        clauses.append(f"{names}{more} did their part")
    return "; ".join(clauses)


def advise(missing: Sequence[Standing], patience: Patience) -> str:
    """Returns what to do about it, in a sentence for each kind of trouble."""
    slow = [s for s in missing if s.is_slow(patience)]
    stuck = [s for s in missing if s.came and s not in slow]
    sentences = []
    if len(slow) + len(stuck) < len(missing):
        sentences.append(
            "Every worker must call it at the same point of the program: look at the log of the "
            "one that never came."
        )
    if stuck:
        sentences.append(
            "Look at the disk of the one that is stuck, and at what its process does "
            "(py-spy dump --pid …)."
        )
    sentences.append("If they are only slow, raise the deadline in distckpt.ManagerOptions.")
    return " ".join(sentences)
