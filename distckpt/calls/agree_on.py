"""Decisions that only the chief makes: `CheckpointManager.agree_on`.

Each worker numbers its questions. The moment does not matter: workers that do not train in step may
ask at different steps.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import actions
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import Failure
from distckpt.messaging.keys import Keys
from distckpt.messaging.waiting import Waiting

# The chief keeps at least this many answers, and is ahead of a worker by at most twice as many.
_KEPT = 64
_WHAT = "agree_on()"


class ChiefDecisions:
    """Tells all workers the chief's decisions. On the training thread.

    Args:
      coordinator: The job.
      manager: The manager's name, the same on all workers.
      deadline: Seconds to wait for the other workers.
    """

    def __init__(self, coordinator: Coordinator, manager: str, deadline: float) -> None:
        self._coordinator = coordinator
        self._manager = manager
        self._deadline = deadline
        self._asked = 0
        self._old: deque[Keys] = deque()

    def agree_on(self, value: Any) -> Any:
        """Returns the chief's `value`, as `CheckpointManager.agree_on` says."""
        number = self._asked  # taken before anything can fail, so that all workers count alike
        self._asked += 1
        if self._coordinator.count == 1:
            return json.loads(json.dumps(value))
        return (
            self._lead(number, value) if self._coordinator.is_chief else self._follow(number, value)
        )

    def _follow(self, number: int, value: Any) -> Any:
        me = self._coordinator.index
        if number and number % _KEPT == 0:  # this worker will not read earlier answers again
            self._coordinator.publish(self._keys(number - 1).ready(me), "")
        json.dumps(value)
        patience = Patience(self._deadline)
        word = Waiting(self._coordinator, self._keys(number), _WHAT, patience).for_word()
        data = json.loads(word)
        if "failure" in data:
            raise Failure.from_json(data["failure"]).to_error(me)
        return data["word"]

    def _lead(self, number: int, value: Any) -> Any:
        keys = self._keys(number)
        self._old.append(keys)
        try:
            word = json.dumps({"word": value})
        except (TypeError, ValueError) as error:
            failure = Failure("ConfigurationError", f"The chief's value for {_WHAT}: {error}", 0)
            self._coordinator.publish(keys.outcome, json.dumps({"failure": failure.to_json()}))
            raise
        self._coordinator.publish(keys.outcome, word)
        if (number + 1) % _KEPT == 0 and number >= _KEPT:
            self._forget_until(number - _KEPT)
        return json.loads(word)["word"]

    def _keys(self, number: int) -> Keys:
        return Keys(self._manager, "word", number)

    def _forget_until(self, number: int) -> None:
        """Chief: waits until all have read answer `number`; forgets all but the newest `_KEPT`."""
        count = self._coordinator.count
        waiting = Waiting(self._coordinator, self._keys(number), _WHAT, Patience(self._deadline))
        missing = set(range(1, count))
        while missing:
            event = waiting.for_ready(missing)
            if not isinstance(event, actions.Ready):
                assert isinstance(event, actions.Lost | actions.TimedOut)
                raise event.failure.to_error()
            missing.discard(event.worker)
        old = [self._old.popleft() for _ in range(len(self._old) - _KEPT)]
        marks = [self._keys(number).ready(worker) for worker in range(1, count)]
        self._coordinator.forget([*(keys.outcome for keys in old), *marks])
