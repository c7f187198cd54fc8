"""Times the actions of distckpt's save protocol within one worker."""

from __future__ import annotations

import time
from typing import Any

from distckpt.saving.save_session import SaveSession

_OPENING = ("SendReady", "AwaitReady", "AnnounceRendezvous", "Open", "AnnounceOpening")


class ActionTimes:
    """What `SaveSession` did in one save, and for how long.

    Attributes:
      log: (action, beginning, end) in the order of the protocol; times of `time.monotonic`.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, float, float]] = []
        perform = SaveSession._perform

        def timed(session: SaveSession, action: Any) -> Any:
            began = time.monotonic()
            try:
                return perform(session, action)
            finally:
                self.log.append((type(action).__name__, began, time.monotonic()))

        SaveSession._perform = timed  # type: ignore[method-assign]

    def seconds(self, started: float, ended: float) -> dict[str, float]:
        """Returns the seconds of each action of the save that took from `started` to `ended`.

        What comes before the first action is "capture and plan"; the rest that is in none is
        "between": the state machine itself, and the return from ``save()``.
        """
        if not self.log:
            return {}
        found = {"capture and plan": self.log[0][1] - started}
        for name, began, end in self.log:
            found[name] = found.get(name, 0.0) + end - began
        found["between"] = ended - started - sum(found.values())
        return found

    def agreement_and_commit(self) -> float:
        """Returns the chief's seconds for all but waiting and writing.

        That is: the opening, then from the moment the last report is in until the others are told.
        """
        opening = sum(end - began for name, began, end in self.log if name in _OPENING)
        reported = max(end for name, _, end in self.log if name in ("Write", "AwaitAnswer"))
        told = max(end for name, _, end in self.log if name == "Tell")
        return opening + told - reported
