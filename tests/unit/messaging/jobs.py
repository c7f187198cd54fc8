"""A job of three workers whose messages a test publishes."""

from __future__ import annotations

from distckpt.coordination.in_process import InProcessJob
from distckpt.core.protocol import messages
from distckpt.core.protocol.messages import Refusal
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import Failure
from distckpt.messaging.keys import Keys
from distckpt.messaging.waiting import Waiting

REFUSAL = Refusal(1, Failure("StorageFullError", "full", 1))


class Job:
    """A job of three workers; `publish` publishes in the name of any of them."""

    def __init__(self):
        self.job = InProcessJob(3)
        self.keys = Keys("m", "save", 0)

    def waiting(self, index, deadline=0.05):
        coordinator = self.job.coordinator(index)
        return Waiting(coordinator, self.keys, "save() of ckpt-1", Patience(deadline))

    def publish(self, key, message):
        text = message if isinstance(message, str) else messages.to_json(message)
        self.job.coordinator(0).publish(key, text)
