"""`Log`: events as lines of Python's logging."""

from __future__ import annotations

import logging

from distckpt import events
from distckpt.core.units import duration, size
from distckpt.events import Event

_WARNINGS = (
    events.SaveFailed,
    events.Fenced,
    events.FellBack,
    events.RestoreFailed,
    events.Preempted,
)


class Log:
    """Writes one line for each event to a logger; failures are warnings.

    Args:
      logger: The logger. Default: "distckpt.events".
      level: The level of other lines.
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self._logger = logger or logging.getLogger("distckpt.events")
        self._level = level

    def __call__(self, event: Event) -> None:
        """Writes the line."""
        level = logging.WARNING if isinstance(event, _WARNINGS) else self._level
        if self._logger.isEnabledFor(level):
            who = f"worker {event.worker} of {event.workers}"
            self._logger.log(level, "%s: %s", who, describe(event), extra={"event": event})


def describe(event: Event) -> str:
    """Returns an event as a readable line."""
    match event:
        case events.SaveStarted():
            return f"{event.name}: the save begins, at step {event.step}"
        case events.Captured():
            return f"{event.name}: the state is held, after {duration(event.seconds)}"
        case events.Resumed():
            return f"{event.name}: training continues after a pause of {duration(event.seconds)}"
        case events.SaveSkipped():
            return f"not saved, because a save is in flight ({event.skipped} so far)"
        case events.ShardWritten():
            parts = f"{duration(event.write_seconds)}, flushed {duration(event.flush_seconds)}"
            took = f"{duration(event.seconds)} (written {parts})"
            return f"{event.name}: {size(event.bytes)} written in {took}"
        case events.Gathered():
            return (
                f"{event.name}: all shards are written, worker {event.last}'s last, "
                f"{duration(event.seconds)} after the chief's own"
            )
        case events.Committed():
            return (
                f"{event.name}: committed, {size(event.bytes)} at step {event.step}, "
                f"in {duration(event.seconds)}"
            )
        case events.Pruned():
            return f"deleted: {', '.join(event.names)}"
        case events.SaveFailed():
            return f"{event.name}: not saved: {event.error}: {event.message}"
        case events.Fenced():
            return f"{event.directory} has been taken over by {event.by or 'another process'}"
        case events.Restored():
            return f"{event.name}: restored in {duration(event.seconds)}"
        case events.FellBack():
            return f"{event.name}: damaged, trying an older one: {event.reason}"
        case events.RestoreFailed():
            return f"not restored: {event.error}: {event.message}"
        case events.Preempted():
            left = event.seconds_left
            return "preempted" + (f", ends in {duration(left)}" if left is not None else "")
    return repr(event)
