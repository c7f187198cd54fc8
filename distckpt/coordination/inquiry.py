"""Asks a service at a bounded rate, and answers soon even if the service does not."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from distckpt import errors
from distckpt.coordination.background import Background
from distckpt.coordination.crew import Crew

_GLANCE = 0.5  # how long `Inquiry.answer` waits for the service, in seconds
_SILENCE = 10.0  # how long the service, like a worker, may be silent before it counts as dead
_PAUSE = 0.25  # how old an answer may be that is returned again
_logger = logging.getLogger(__name__)


class Inquiry:
    """Asks the service who is alive, not more often than necessary. Thread-safe.

    Args:
      ask: Returns the dead workers with the reasons; may block.
      leader: The worker on which the service runs.
      crew: The threads that ask.

    Attributes:
      last: The last answer.
    """

    def __init__(self, ask: Callable[[], dict[int, str]], leader: int, crew: Crew) -> None:
        self._ask = ask
        self._leader = leader
        self._crew = crew
        self._lock = threading.Lock()
        self.last: dict[int, str] = {}
        self._query: Background[dict[int, str]] | None = None

    def begin(self) -> None:
        """Asks for the first time, without waiting for the answer.

        Raises:
          CoordinationError: No thread is available.
        """
        self._query = Background(self._ask, self._crew)

    def answer(self) -> dict[int, str]:
        """Returns the dead workers with the reasons, within half a second."""
        with self._lock:
            query = self._renew()
        if query is None:
            return dict(self.last)
        if query.finished(_GLANCE):
            try:
                self.last = query.result()
            except Exception:
                _logger.exception("the coordination service could not be asked who is alive")
        elif query.seconds() >= _SILENCE:
            silence = f"its coordination service has not answered for {query.seconds():.0f} s"
            return self.last | {self._leader: silence}
        return dict(self.last)

    @property
    def answered(self) -> bool:
        """Whether the last question has been answered."""
        return self._query is not None and self._query.finished(0)

    def _renew(self) -> Background[dict[int, str]] | None:
        """Asks again if the last answer is there, and is not quite new. Returns the last query."""
        last = self._query
        if last is None or (last.finished(0) and last.seconds() >= _PAUSE):
            with contextlib.suppress(errors.CoordinationError):  # the last known state must do
                self._query = Background(self._ask, self._crew)
        return self._query
