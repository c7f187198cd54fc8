"""Shows the phases of each worker in the saves of a directory, and stragglers. Pure.

The phases come from the manifests, by each worker's own clock.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from typing import Any

from distckpt.core.manifest import Manifest
from distckpt.core.protocol import phases
from distckpt.core.protocol.phases import Phase

# A worker is a straggler if its own part took this many times the median of all, and this many
# seconds more.
_TIMES = 1.5
_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Save:
    """The phases of one save.

    Attributes:
      name: The checkpoint.
      step: Its step.
      seconds: How long the save took on the chief.
      began: When the first worker began, in seconds since 1970.
      workers: The phases of each worker, by index.
    """

    name: str
    step: int
    seconds: float
    began: float
    workers: tuple[tuple[Phase, ...], ...]

    def own(self, worker: int) -> float:
        """Returns how long a worker's own part took, in seconds, without waiting for others."""
        return sum(p.seconds for p in self.workers[worker] if p.name in phases.OWN)

    @property
    def straggler(self) -> int | None:
        """The worker whose own part took much longer than most workers'; None if there is none."""
        if len(self.workers) < 2:
            return None
        own = [self.own(worker) for worker in range(len(self.workers))]
        latest = max(range(len(own)), key=own.__getitem__)
        median = statistics.median_low(own)
        late = own[latest] > _TIMES * median and own[latest] > median + _SECONDS
        return latest if late else None

    @property
    def headline(self) -> str:
        """The headline of the save's picture."""
        text = f"{self.name}, step {self.step}: {self.seconds:.3g} s"
        if self.straggler is None:
            return text
        own = [self.own(worker) for worker in range(len(self.workers))]
        slowest = max(
            (p for p in self.workers[self.straggler] if p.name in phases.OWN),
            key=lambda p: p.seconds,
        )
        part = f"{own[self.straggler]:.3g} s for its part ({slowest.name} {slowest.seconds:.3g} s)"
        return (
            f"{text}; worker {self.straggler} took {part}, most {statistics.median_low(own):.3g} s"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns what ``distckpt timeline --json`` prints."""
        return {
            "name": self.name,
            "step": self.step,
            "seconds": self.seconds,
            "began": self.began,
            "straggler": self.straggler,
            "workers": [
                {
                    "worker": number,
                    "own_seconds": self.own(number),
                    "phases": [phase._asdict() for phase in worker],
                }
                for number, worker in enumerate(self.workers)
            ],
        }


def of_manifest(manifest: Manifest) -> Save | None:
    """Returns the save that made a checkpoint; None if its manifest has no phases."""
    workers = tuple(record.phases for record in manifest.workers)
    if not any(workers):
        return None
    began = min(phase.began for worker in workers for phase in worker)
    return Save(manifest.name, manifest.step, manifest.seconds, began, workers)


def last(manifests: Iterable[Manifest], count: int) -> list[Save]:
    """Returns the newest `count` saves with phases, oldest first."""
    ordered = sorted(manifests, key=lambda m: m.order)
    saves = [save for save in map(of_manifest, ordered) if save is not None]
    return saves[-count:]
