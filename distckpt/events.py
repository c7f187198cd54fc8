"""Events in the life of a job's checkpoints: one class for each kind.

A manager passes events to the listeners in `ManagerOptions.listeners`, in order, on a separate
thread:

    def on_event(event):
      if isinstance(event, distckpt.events.SaveFailed):
        alert(event.message)

    distckpt.ManagerOptions(listeners=[on_event])

`distckpt.listeners` has ready-made listeners. docs/events.md lists which worker emits which event,
and when.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """The base of all events.

    Attributes:
      time: Seconds since 1970 by this worker's clock.
      worker: The worker that emits the event; 0 is the chief.
      workers: The number of workers.
      directory: The checkpoint directory: an absolute path or a URL.
    """

    time: float
    worker: int
    workers: int
    directory: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain data: all fields, and the name of the class under "event"."""
        return {"event": type(self).__name__, **dataclasses.asdict(self)}


Listener = Callable[[Event], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveStarted(Event):
    """``save()`` has begun to save `name`. Every worker."""

    name: str
    step: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captured(Event):
    """The state is held: training can no longer change what is saved.

    Every worker. `seconds`: since ``save()`` began to save.
    """

    name: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """``save()`` returns and training continues; with a blocking save, after the commit.

    Every worker. `seconds`: how long training stood still for this save.
    """

    name: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveSkipped(Event):
    """A call of ``save()`` saved nothing because a save was in flight. Every worker.

    `skipped`: the number of skipped calls so far.
    """

    skipped: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardWritten(Event):
    """This worker has written its share. Every worker.

    Attributes:
      name: The checkpoint's name.
      bytes: How many bytes it wrote.
      seconds: How long that took in all.
      write_seconds: The part of `seconds` for writing.
      flush_seconds: The part for forcing the files to stable storage; about 0 without `durable`.
    """

    name: str
    bytes: int
    seconds: float
    write_seconds: float
    flush_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered(Event):
    """All workers have reported. The chief.

    Attributes:
      name: The checkpoint's name.
      seconds: How long the chief waited for the reports after writing its own share.
      last: The worker whose report came last; the chief itself if it is alone.
    """

    name: str
    seconds: float
    last: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Committed(Event):
    """The checkpoint is committed. The chief, then each other worker when it learns of the commit.

    Attributes:
      name: The checkpoint's name.
      path: The checkpoint's path.
      step: The step that the manifest records.
      bytes: Bytes of all its tensors, according to the plan.
      seconds: Since this worker began to save.
      metrics: The metrics given to ``save(metrics=…)`` on this worker.
    """

    name: str
    path: str
    step: int
    bytes: int
    seconds: float
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruned(Event):
    """Retention has deleted the checkpoints `names`, at least one. The chief."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveFailed(Event):
    """A save has failed. Every worker that is alive and has begun it, see `SaveStarted`.

    A call of ``save()`` that raises before it begins a save, e.g. because of its arguments, emits
    nothing on that worker.

    Attributes:
      name: The checkpoint's name.
      error: The class of the error, e.g. "StorageFullError".
      message: The text of the error.
      culprit: The worker where it happened; None if it concerns no particular worker.
    """

    name: str
    error: str
    message: str
    culprit: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fenced(Event):
    """Another process has taken over the directory: this job can no longer save. Every worker.

    Follows `SaveFailed`. `by`: the other host and process, if known.
    """

    by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored(Event):
    """All workers have restored `name`, in `seconds`. Every worker."""

    name: str
    path: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FellBack(Event):
    """`name` is damaged (see `reason`), so an older checkpoint is tried. The chief."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestoreFailed(Event):
    """A restore has failed; the fields are as in `SaveFailed`. Every worker."""

    error: str
    message: str
    culprit: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preempted(Event):
    """This worker is preempted, by SIGTERM or a watcher. Only with `distckpt.handle_preemption`.

    The worker ends in `seconds_left` seconds; None if that is unknown.
    """

    seconds_left: float | None
