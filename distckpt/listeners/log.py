"""`Log`: events as lines of Python's logging."""

from __future__ import annotations

import logging

from distckpt import events
from distckpt.events import Event

_WARNINGS = (
    events.SaveFailed,
    events.Fenced,
    events.FellBack,
    events.RestoreFailed,
    events.Preempted,
)


class Log:
    """Writes one line for each event to a logger; what has gone wrong is a warning.

    Args:
      logger: The logger. Default: "distckpt.events".
      level: The level of what is no warning.
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
    """Returns what an event says, as a line for people."""
    match event:
        case events.SaveStarted():
            return f"{event.name}: the save begins, at step {event.step}"
        case events.Captured():
            return f"{event.name}: the state is held, after {_time(event.seconds)}"
        case events.Resumed():
            return f"{event.name}: training goes on; it stood still for {_time(event.seconds)}"
        case events.SaveSkipped():
            return f"not saved, for a save is in flight ({event.skipped} so far)"
        case events.ShardWritten():
            return (
                f"{event.name}: {_size(event.bytes)} written in {_time(event.seconds)} "
                f"(written {_time(event.write_seconds)}, flushed {_time(event.flush_seconds)})"
            )
        case events.Gathered():
            return (
                f"{event.name}: all shards are there, worker {event.last}'s last, "
                f"{_time(event.seconds)} after the chief's own"
            )
        case events.Committed():
            return (
                f"{event.name}: committed, {_size(event.bytes)} at step {event.step}, "
                f"in {_time(event.seconds)}"
            )
        case events.Pruned():
            return f"deleted: {', '.join(event.names)}"
        case events.SaveFailed():
            return f"{event.name}: not saved: {event.error}: {event.message}"
        case events.Fenced():
            return f"{event.directory} has been taken over by {event.by or 'another process'}"
        case events.Restored():
            return f"{event.name}: restored in {_time(event.seconds)}"
        case events.FellBack():
            return f"{event.name}: damaged, an older one is tried: {event.reason}"
        case events.RestoreFailed():
            return f"not restored: {event.error}: {event.message}"
        case events.Preempted():
            left = event.seconds_left
            return "told to end" + (f" in {_time(left)}" if left is not None else "")
    return repr(event)


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
