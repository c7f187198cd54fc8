"""Tells slow workers from stuck ones, and describes the progress of each awaited worker.

A slow worker has made progress recently: more bytes, or another phase. A stuck worker has come but
makes none; its process may well be alive. The coordination service reports deaths.
`messaging.waiting` extends the deadline while all missing workers are only slow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from distckpt.core.protocol.messages import Progress

_MIB = 2**20
_SHOWN = 8  # workers that a message describes one by one


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long one call waits for other workers. All times are in seconds.

    Attributes:
      seconds: The deadline.
      factor: The deadline is extended by at most this factor, while all awaited workers are only
        slow.
    """

    seconds: float
    factor: float = 1.0

    @property
    def limit(self) -> float:
        """The time after which the call gives up, even if the other workers make progress."""
        return self.factor * self.seconds

    @property
    def interval(self) -> float:
        """The time between two progress messages of one worker, and before the first."""
        return min(5.0, self.seconds / 40)

    @property
    def stall(self) -> float:
        """The time without progress after which a worker counts as stuck."""
        return max(5.0, self.seconds / 10)

    @property
    def grace(self) -> float:
        """The time beyond its deadline that a worker gives the chief to publish the outcome."""
        return 0.1 * self.seconds + 5.0


@dataclasses.dataclass(frozen=True)
class Standing:
    """What is known of an awaited worker.

    Attributes:
      name: The worker's name in messages.
      joined: Whether it has ever been seen in this job.
      came: Whether it has come to this call.
      progress: Its last progress message, if there was one.
      ago: How many seconds ago that was.
    """

    name: str
    joined: bool = True
    came: bool = False
    progress: Progress | None = None
    ago: float = 0.0

    def is_slow(self, patience: Patience) -> bool:
        """Whether it is worthwhile to go on waiting for the worker."""
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
            return "came, but neither finished its part nor reported progress"
        if not self.joined:
            return "never came, and has not been seen in this job at all: has it been started?"
        return "never came"


def what(progress: Progress) -> str:
    """Returns a worker's phase and its progress: "writing, 3.0 of 8.0 MiB"."""
    if not progress.total:
        return progress.phase
    done, total = min(progress.done, progress.total) / _MIB, progress.total / _MIB
    return f"{progress.phase}, {done:.1f} of {total:.1f} MiB"


def explain(missing: Sequence[Standing], finished: Iterable[str], patience: Patience) -> str:
    """Returns which workers have not done their part, and which have.

    Args:
      missing: The awaited workers.
      finished: Names of the other workers that are known to have done their part.
      patience: The call's.
    """
    clauses = [standing.describe(patience) for standing in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        clauses.append(f"and {len(missing) - _SHOWN} more have not done their part")
    done = list(finished)
    if len(done) == 1:
        clauses.append(f"{done[0]} has done its part")
    elif done:
        clauses.append(f"{_list(done)} have done their part")
    return "; ".join(clauses)


def _list(names: Sequence[str]) -> str:
    """Returns "worker 0, worker 2 and worker 3"; a long list ends with the number of the rest."""
    if len(names) > _SHOWN:
        return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def advise(missing: Sequence[Standing], patience: Patience) -> str:
    """Returns what to do about missing workers, with a sentence for each kind of trouble."""
    slow = [s for s in missing if s.is_slow(patience)]
    stuck = [s for s in missing if s.came and s not in slow]
    sentences = []
    if len(slow) + len(stuck) < len(missing):
        sentences.append(
            "Every worker must call it at the same point of the program, on a manager made with "
            "the same arguments: look at the log of the one that never came. Where training needs "
            "all workers in each step, a call made by one worker alone holds up all of them until "
            "the deadline."
        )
    if stuck:
        sentences.append(
            "Look at the disk of the stuck worker, and at what its process does "
            "(py-spy dump --pid …)."
        )
    sentences.append("If they are only slow, raise the deadline in distckpt.ManagerOptions.")
    return " ".join(sentences)
