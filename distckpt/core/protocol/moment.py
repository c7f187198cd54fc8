"""The moment of training at which a worker calls, by which two workers know that they agree.

Counting calls cannot tell them apart: a program that catches an error on one worker makes one call
more or less there than elsewhere. So a worker tells how far its *state* has got: the restore that
the state comes from, and the values of its counters.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

_SHOWN = 3  # counters that a message names


class Relation(enum.Enum):
    """The relation of one moment to another."""

    SAME = "same"
    EARLIER = "earlier"
    LATER = "later"
    UNRELATED = "unrelated"


@dataclasses.dataclass(frozen=True)
class Moment:
    """How far a worker's state has got.

    Attributes:
      generation: The number of the restore call that the state comes from; 0 without a restore, and
        negative if that restore failed, so that the state may be half restored.
      counters: (name, value) of the state's counters, sorted by name: the step counter, or the
        mirrored integer variables. Empty if there are none.
    """

    generation: int = 0
    counters: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, generation: int, counters: Mapping[str, float]) -> Moment:
        """Returns the moment at which the counters have these values."""
        return cls(generation, tuple(sorted(counters.items())))

    @property
    def is_known(self) -> bool:
        """Whether the state tells steps apart."""
        return bool(self.counters)

    def relation(self, other: Moment) -> Relation:
        """Returns the relation of this moment to `other`: EARLIER if it is before `other`."""
        if self.generation != other.generation:
            if self.generation < 0 or other.generation < 0:
                return Relation.UNRELATED
            before = self.generation < other.generation
            return Relation.EARLIER if before else Relation.LATER
        if [name for name, _ in self.counters] != [name for name, _ in other.counters]:
            return Relation.UNRELATED
        pairs = [
            (mine, theirs)
            for (_, mine), (_, theirs) in zip(self.counters, other.counters, strict=True)
        ]
        if all(mine == theirs for mine, theirs in pairs):
            return Relation.SAME
        if all(mine <= theirs for mine, theirs in pairs):
            return Relation.EARLIER
        if all(mine >= theirs for mine, theirs in pairs):
            return Relation.LATER
        return Relation.UNRELATED

    def describe(self) -> str:
        """Returns the moment in words: "step 120", "iterations 7, after a restore"."""
        shown = [f"{name} {value:.15g}" for name, value in self.counters[:_SHOWN]]
        if len(self.counters) > _SHOWN:
            shown.append(f"{len(self.counters) - _SHOWN} more counters")
        text = ", ".join(shown) or "a state without counters"
        if self.generation < 0:
            return f"{text}, after a restore that failed"
        return f"{text}, after a restore" if self.generation else text


NOWHERE = Moment()  # of a job of one worker, where nothing is compared


def differ(worker: str, mine: Moment, chiefs: Moment) -> str:
    """Returns the error message for a worker whose moment is not the chief's."""
    here, there = mine.describe(), chiefs.describe()
    if here == there:
        here, there = f"{here} (call {mine.generation})", f"{there} (call {chiefs.generation})"
    if mine.generation != chiefs.generation:
        return (
            f"{worker} is at {here} and the chief at {there}. Their states come from different "
            "calls of restore_or_initialize(): one of them failed on one worker. Call it again on "
            "all workers; until then nothing can be saved."
        )
    return (
        f"{worker} is at {here} and the chief at {there}. A checkpoint holds the state of one "
        "moment, so all workers must call save() at the same step. If a call has failed on one "
        "worker alone, the next one brings them together."
    )


def went_on(worker: str, began: Moment, held: Moment) -> str:
    """Returns the error message for a worker whose state has changed while ``save()`` took it."""
    return (
        f"{worker} was at {began.describe()} when save() began, and at {held.describe()} when its "
        "state was taken. Something trains at the same time, such as another thread. Call save() "
        "between two steps, from the thread that trains, or let a lock keep the two apart."
    )


def from_json(data: Any) -> Moment:
    """Returns the moment in parsed JSON."""
    return Moment(data["generation"], tuple((name, value) for name, value in data["counters"]))
