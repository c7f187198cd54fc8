"""How a preempted job ends: all workers agree whether there is time to save; the chief ends last.

Only preempted workers know how long they have. Clocks differ between hosts, so each worker
publishes the seconds that it has left; the chief knows how long saves have taken, and decides.
"""

from __future__ import annotations

import json
import logging

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import actions, messages
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import DistckptError
from distckpt.messaging.keys import Keys
from distckpt.messaging.waiting import Waiting
from distckpt.preemption import time_budget
from distckpt.runtime import host

_log = logging.getLogger("distckpt")
# Seconds that the chief, which runs the coordination service, waits for the others to leave.
FAREWELL = 5.0


def has_time(
    coordinator: Coordinator,
    keys: Keys,
    left: float | None,
    expected: float | None,
    patience: Patience,
) -> bool:
    """Returns whether there is time for a save. Every worker, at the same point.

    Args:
      coordinator: The job.
      keys: Names of the keys of this question.
      left: Seconds until this worker ends; None if it is not preempted.
      expected: How long a save takes, in seconds; None if unknown. Only the chief's value counts.
      patience: How long to wait for the other workers.

    Raises:
      CoordinationError: Another worker did not come, or died.
    """
    if coordinator.count == 1:
        return time_budget.fits([left], expected)
    if not coordinator.is_chief:
        coordinator.publish(keys.ready(coordinator.index), json.dumps(left))
        return Waiting(coordinator, keys, "a save before the end", patience).for_decision().save
    lefts = [left]
    waiting = Waiting(coordinator, keys, "a save before the end", patience)
    missing = set(range(1, coordinator.count))
    while missing:
        event = waiting.for_ready(missing)
        if not isinstance(event, actions.Ready):
            assert isinstance(event, actions.Lost | actions.TimedOut)
            raise event.failure.to_error()
        missing.discard(event.worker)
        lefts.append(json.loads(event.fingerprint))
    decision = messages.Decision(time_budget.fits(lefts, expected))
    coordinator.publish(keys.outcome, messages.to_json(decision))
    return decision.save


def leave(coordinator: Coordinator, keys: Keys) -> None:
    """Ends this worker's part. The chief returns when all others have left, or after a while.

    The coordination service ends with the chief, so a worker that has not yet read the outcome of
    the save would never learn it.
    """
    try:
        if not coordinator.is_chief:
            coordinator.publish(keys.ready(coordinator.index), "")
            return
        missing = set(range(1, coordinator.count))
        end = host.monotonic() + FAREWELL
        while missing and host.monotonic() < end:
            found = coordinator.fetch([keys.ready(w) for w in missing], end - host.monotonic())
            missing = {w for w in missing if found and keys.ready(w) != found[0]}
    except DistckptError as error:
        _log.info("%s", error)
