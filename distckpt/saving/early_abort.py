"""Tells the other workers of a save that this worker cannot begin, so that none waits for it."""

from __future__ import annotations

import logging

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import messages
from distckpt.errors import DistckptError, Failure
from distckpt.messaging import refusals
from distckpt.messaging.keys import Keys

_log = logging.getLogger("distckpt")


def withdraw(
    coordinator: Coordinator, keys: Keys, turn: int, error: BaseException, name: str
) -> Failure:
    """Tells the other workers that this one could not capture its state; returns the failure.

    Args:
      coordinator: The job.
      keys: The keys of this save.
      turn: The number of this worker's answer.
      error: The error.
      name: The checkpoint's name.
    """
    me = coordinator.index
    failure = unreadable(coordinator, error, f" for {name}")
    try:
        if coordinator.is_chief:
            coordinator.publish(keys.outcome, messages.to_json(messages.Outcome(failure)))
        else:
            refusals.publish(coordinator, keys, turn, messages.Refusal(me, failure))
    except DistckptError as lost:
        _log.warning("%s", lost)
    return failure


def unreadable(coordinator: Coordinator, error: BaseException, what: str = "") -> Failure:
    """Returns the failure of a worker that could not read its state.

    Args:
      coordinator: The job.
      error: The error.
      what: The purpose of reading, for the message: " for ckpt-12".
    """
    me = coordinator.index
    failure = Failure.from_exception(error, me)
    if isinstance(error, DistckptError):
        return failure
    text = f"{coordinator.name(me)} could not read its state{what}: {failure.message}"
    return Failure(failure.kind, text, me, failure.trace)
