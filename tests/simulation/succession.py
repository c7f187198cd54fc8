"""Which job comes after which: an older one, held up before its first save, does not come back.

Whoever takes the directory after a job has restored is newer than that job. Once a save of such a
one is acknowledged, the older job commits no more, for what it goes on from is older than that.
"""

from __future__ import annotations

from .oracle import Order
from .world import Violation


class Succession:
    """Who has taken the directory that is there now, when each job has restored, and from what.

    By number, jobs; times are counts of events.
    """

    def __init__(self) -> None:
        self._restored: dict[int, tuple[int, Order]] = {}
        self._taken: dict[int, int] = {}
        self._acknowledged: dict[int, Order] = {}

    def restored(self, job: int, at: int, order: Order) -> None:
        """The chief of a job has restored what was committed as `order`."""
        self._restored[job] = at, order

    def took(self, job: int, at: int) -> None:
        """The chief of a job has taken a term."""
        self._taken.setdefault(job, at)

    def acknowledged(self, job: int, order: Order) -> None:
        """A worker of a job was told that what is committed as `order` is saved."""
        self._acknowledged[job] = max(order, self._acknowledged.get(job, order))

    def replaced(self) -> None:
        """Another directory, or none, has come into the place of the one before."""
        self._taken.clear()
        self._acknowledged.clear()

    def committed(self, job: int, order: Order) -> None:
        """A job has committed; looks whether it may have."""
        at, restored = self._restored.get(job, (0, (0, 0)))
        for other, acknowledged in self._acknowledged.items():
            came_later = other != job and self._taken.get(other, -1) > at
            if came_later and restored < acknowledged < order:
                raise Violation(
                    f"job {job} goes on from {restored} and commits {order}; job {other} has come "
                    f"since, and was told that {acknowledged} is saved"
                )
