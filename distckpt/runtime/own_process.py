"""Refuses calls of a manager in a child process of the process that the manager belongs to."""

from __future__ import annotations

from distckpt.errors import ConfigurationError
from distckpt.runtime import host


class OwnProcess:
    """Remembers the process that made a manager.

    A forked child has copies of its parent's objects. If it used them, it would take over its
    parent's directory, and publish messages in its parent's name.
    """

    def __init__(self) -> None:
        self._pid = host.pid()

    @property
    def is_current(self) -> bool:
        """Whether this is the process that made the manager."""
        return host.pid() == self._pid

    def check(self) -> None:
        """Raises ConfigurationError in another process."""
        if not self.is_current:
            raise ConfigurationError(
                f"This CheckpointManager belongs to process {self._pid}, which made it, and not to "
                f"its child process {host.pid()}: call it in process {self._pid}, or make another "
                "one, for another directory, where you need it."
            )
