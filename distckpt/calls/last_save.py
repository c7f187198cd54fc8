"""Finds out how a worker's last save ended if the worker stopped waiting for its outcome."""

from __future__ import annotations

import logging

from distckpt.calls.call_log import CallLog
from distckpt.calls.save_request import Joined, Saver
from distckpt.core.protocol import call_matching
from distckpt.core.protocol.messages import Outcome
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import CommitUnknownError
from distckpt.saving.save_session import SaveSession

_log = logging.getLogger("distckpt")


class LastSave:
    """The last save in which this worker took part. On the training thread.

    Args:
      log: The log of calls.
      saver: Gets the outcome of a save that was committed after all.
    """

    def __init__(self, log: CallLog, saver: Saver) -> None:
        self._calls = log
        self._saver = saver
        self._save: tuple[Joined, SaveSession] | None = None

    def begun(self, joined: Joined, session: SaveSession) -> None:
        """Notes that a save begins."""
        self._save = joined, session

    def forget(self) -> None:
        """Forgets the save: its outcome no longer matters."""
        self._save = None

    def is_committed(self, joined: Joined) -> bool:
        """Returns whether this worker knows that the save `joined` is committed."""
        return self._save is not None and self._save[0] is joined and self._save[1].is_committed

    def outcome(self, seconds: float) -> Outcome | None:
        """Returns the outcome of the save, if this worker has stopped waiting for it.

        Returns:
          None if this worker already knows it, or if it is not published within `seconds`.
        """
        if self._save is None or not self._save[1].is_open:
            return None
        outcome = self._calls.outcome(self._save[0].keys, seconds)
        if outcome is not None:
            self._save = None
            if outcome.failure is None:
                _log.info("%s is committed after all.", outcome.name)
                self._saver.adopt(outcome)
        return outcome

    def settle(self, patience: Patience) -> Joined | None:
        """Waits for the outcome of the save, if this worker has stopped waiting for it.

        Returns:
          The save, if it was committed after all.

        Raises:
          CommitUnknownError: The outcome is still unknown.
        """
        if self._save is None or not self._save[1].is_open:
            return None
        joined, seconds = self._save[0], patience.seconds + patience.grace
        outcome = self.outcome(seconds)
        if outcome is not None:
            return joined if outcome.failure is None else None
        if not self._chief_has_gone_on():
            raise CommitUnknownError(
                f"After another {seconds:g} s, the chief has still not said whether {joined.name} "
                "is committed. Look at the chief's log and its storage."
            )
        _log.warning("The chief never said how the save of %s ended.", joined.name)
        self._save = None
        return None

    def _chief_has_gone_on(self) -> bool:
        """Returns whether the chief has begun another save, so that this one is over."""
        found = self._calls.glance()
        return found is not None and call_matching.needs_workers(found[1])
