"""How a worker follows the chief's calls. Pure: what to do about the next entry of the log.

The chief is the sequencer: each of its calls that concerns the other workers is one entry of a log.
A worker has a cursor into the log and no numbers of its own. So a program that deviates on one
worker cannot put that worker out of step for good: it goes on to the call of its own moment.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from distckpt.core.protocol import moment as moments
from distckpt.core.protocol.messages import Call
from distckpt.core.protocol.moment import Moment, Relation

SAVE, RESTORE = "save", "restore"


class Move(enum.Enum):
    """What a worker does about the entry at its cursor."""

    JOIN = "the entry is this call: take part in it, or take the chief's answer"
    PASS = "the entry is over: look at the next"
    REFUSE = "the entry is of an earlier moment: say so, look at the next"
    MISMATCH = "the entry is of another moment, and neither is earlier: say so, and raise"
    AHEAD = "the chief is past this worker's moment: leave the entry for the next call"


def on_save(
    call: Call, moment: Moment, withdrawn: Sequence[Moment], is_over: Callable[[], bool]
) -> Move:
    """Returns what a worker that was called to save does.

    Args:
      call: The entry.
      moment: The worker's moment.
      withdrawn: The moments at which this worker raised an error instead of taking part in this
        entry, and said so.
      is_over: Returns whether the entry's outcome is known.
    """
    if call.kind != SAVE:
        return Move.PASS if is_over() else Move.AHEAD
    if any(m.relation(call.moment) is not Relation.EARLIER for m in withdrawn):
        return Move.PASS  # so the chief gives the entry up
    relation = call.moment.relation(moment)
    if relation is Relation.SAME:
        return Move.JOIN
    if relation is Relation.LATER:
        # If the entry is over, it dates from before the program itself went back to an earlier
        # state.
        return Move.PASS if needs_workers(call) and is_over() else Move.AHEAD
    if call.failure is not None and not call.moment.is_known and relation is not Relation.EARLIER:
        return Move.JOIN  # the chief could not read its state, and so does not know the step
    if not needs_workers(call):
        return Move.PASS
    if relation is Relation.EARLIER:
        return Move.REFUSE
    return Move.PASS if is_over() else Move.MISMATCH


def on_restore(call: Call) -> Move:
    """Returns what a worker that was called to restore does; see `on_save`."""
    if call.kind == RESTORE:
        return Move.JOIN
    return Move.REFUSE if needs_workers(call) else Move.PASS


def needs_workers(call: Call) -> bool:
    """Returns whether the other workers must act, or whether the entry itself is the answer."""
    return call.failure is None and (call.kind == RESTORE or call.save)


def differ(worker: str, mine: Moment, call: Call) -> str:
    """Returns the error message for a worker whose call is not the chief's."""
    if call.kind == RESTORE:
        return (
            f"{worker} called save() and the chief restore_or_initialize(). All workers must call "
            "the same methods, in the same order."
        )
    return moments.differ(worker, mine, call.moment)
