"""Finds the chief's call of ``restore_or_initialize()`` in the log of calls."""

from __future__ import annotations

from distckpt.calls.call_log import CallLog
from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import call_matching
from distckpt.core.protocol.call_matching import Move
from distckpt.core.protocol.messages import Call
from distckpt.core.protocol.moment import Moment
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import StateMismatchError
from distckpt.messaging.keys import Keys


def join_restore(coordinator: Coordinator, log: CallLog, patience: Patience) -> Keys:
    """Returns the keys of the chief's call. Every worker; on the training thread.

    A restore has no step: the state before it does not matter, and may not be readable yet.

    Raises:
      DeadlineExceededError: The chief never came.
      WorkerLostError: The chief died.
    """
    if coordinator.is_chief:
        return log.enter(Call(call_matching.RESTORE, Moment(log.generation)))
    log.abandon()
    who = coordinator.name(coordinator.index)
    while True:
        keys, call = log.look("restore_or_initialize()", patience)
        move = call_matching.on_restore(call)
        if move is Move.JOIN:
            log.join(call)
            return keys
        if move is Move.REFUSE:
            log.refuse(
                StateMismatchError(
                    f"{who} called restore_or_initialize() and the chief save(). All workers must "
                    "call the same methods, in the same order."
                )
            )
        log.pass_on()
