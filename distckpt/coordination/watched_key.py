"""One key that this process waits for, and the answer once there is one."""

from __future__ import annotations

import time
from collections.abc import Sequence

# Seconds after which an open call has certainly looked, even over a busy network.
LOOK = 0.2
# Seconds that an answer waits for an answer to an earlier key whose call has just begun. A thread
# that has not begun its call yet, on a busy machine, is waited for as long as a first look takes.
ORDER = 0.02
# Seconds that the first call for a key lasts, and the longest.
FIRST_CALL, CALL = 0.25, 60.0
# Seconds until the first look at a key that no thread has taken; later intervals are as long as all
# before them together.
FIRST_LOOK = 0.5
# Seconds that may pass between two fetches of a caller that goes on waiting.
BETWEEN = 2.0


class WatchedKey:
    """A key, who looks at it, and what was found.

    Attributes:
      key: The key.
      taken: When a thread took it; None while no thread has a call open for it.
      asked: When that thread's first call began; 0 before.
      looked: When a fetch last looked at it; 0 if none has.
      wanted_until: Until when a fetch waits for it.
      value: The value, once it is found.
      error: What was raised instead.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.since = time.monotonic()
        self.taken: float | None = None
        self.asked = 0.0
        self.looked = 0.0
        self.wanted_until = self.since
        self.value: str | None = None
        self.error: Exception | None = None

    @property
    def answered(self) -> bool:
        """Whether there is a value or an error."""
        return self.value is not None or self.error is not None

    @property
    def is_left(self) -> bool:
        """Whether only a fetch itself can look at it."""
        return self.taken is None and not self.answered

    def answer(self, value: str | None, error: Exception | None) -> None:
        """Notes what a call has found, if anything, unless another call was faster."""
        if not self.answered:
            self.value, self.error = value, error

    def call_seconds(self) -> float:
        """Returns how long the next open call may last: few of them are ever given up."""
        return min(CALL, max(FIRST_CALL, time.monotonic() - self.since))

    def next_look(self) -> float:
        """Returns when a fetch should look at it."""
        return max(self.since + FIRST_LOOK, 2 * self.looked - self.since)

    def may_be_answered(self, now: float) -> bool:
        """Whether the first look of its thread may not be over yet."""
        if self.taken is None:
            return False
        return now < (self.asked + ORDER if self.asked else self.taken + LOOK)

    def may_be_wanted(self, now: float) -> bool:
        """Whether somebody waits for it, or has just done so and may go on."""
        return now <= self.wanted_until + BETWEEN

    def is_stale(self, now: float) -> bool:
        """Whether nobody has waited for it for a long time."""
        return now > self.wanted_until + CALL


def first_answered(watches: Sequence[WatchedKey], now: float) -> WatchedKey | None:
    """Returns the first answered key, unless an earlier key may be answered at any moment."""
    for watch in watches:
        if watch.answered:
            return watch
        if watch.may_be_answered(now):
            return None
    return None
