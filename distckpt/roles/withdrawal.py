"""Leaves a save before it has begun on this worker, so that nobody waits for it in vain."""

from __future__ import annotations

import logging

from distckpt.coordination.base import Coordinator
from distckpt.core import messages
from distckpt.errors import DistckptError, Failure, WorkerLostError
from distckpt.roles.keys import Keys

_log = logging.getLogger("distckpt")


def withdraw(coordinator: Coordinator, keys: Keys, error: Exception, name: str) -> Failure:
    """Tells the others that this worker could not take hold of its state; returns the failure.

    Args:
      coordinator: The job.
      keys: Names of the keys of this save.
      error: What went wrong.
      name: The checkpoint's name.
    """
    me = coordinator.index
    failure = Failure.from_exception(error, me)
    if not isinstance(error, DistckptError):
        text = f"{coordinator.name(me)} could not read its state for {name}: {failure.message}"
        failure = Failure(failure.kind, text, me, failure.trace)
    try:
        if coordinator.is_chief:
            coordinator.publish(keys.outcome, messages.to_json(messages.Outcome(failure)))
        else:
            coordinator.publish(keys.answer(me), messages.to_json(messages.Refusal(me, failure)))
    except WorkerLostError as lost:
        _log.warning("%s", lost)
    return failure
