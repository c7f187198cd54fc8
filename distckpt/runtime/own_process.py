"""Refuses calls in a child process of the process that an object belongs to."""

from __future__ import annotations

from distckpt.errors import ConfigurationError
from distckpt.runtime import host


class OwnProcess:
    """Remembers the process that made an object.

    A forked child has copies of its parent's objects. If it used them, it would take over its
    parent's directory, and publish messages in its parent's name.

    Args:
      what: What the object is, for the message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = host.pid()

    @property
    def is_current(self) -> bool:
        """Whether this is the process that made the object."""
        return host.pid() == self._pid

    def check(self) -> None:
        """Raises ConfigurationError in another process."""
        if not self.is_current:
            raise ConfigurationError(
                f"This {self._what} belongs to process {self._pid}, which made it, and not to its "
                f"child process {host.pid()}: call it in process {self._pid}, or make another one, "
                "for another directory, where you need it."
            )
