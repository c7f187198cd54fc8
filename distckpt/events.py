"""What happens to the checkpoints of a job, as it happens: one class for each kind of event.

A manager hands events to the listeners in `ManagerOptions.listeners`, in order, on a thread of
their own:

    def on_event(event):
      if isinstance(event, distckpt.events.SaveFailed):
        alert(event.message)

    distckpt.ManagerOptions(listeners=[on_event])

`distckpt.listeners` has some that are ready made. docs/events.md lists who emits what, and when.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have.

    Attributes:
      time: Seconds since 1970 by this worker's clock.
      worker: The worker that tells it; 0 is the chief.
      workers: How many there are.
      directory: The checkpoint directory, absolute, or its URL.
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
    """A call of ``save()`` has begun to save `name`. Every worker."""

    name: str
    step: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captured(Event):
    """The state is held: what training does from now on does not change what is saved.

    Every worker. `seconds`: since ``save()`` began to save.
    """

    name: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """``save()`` returns, and training goes on; of a blocking save after the commit.

    Every worker. `seconds`: how long training stood still for this save.
    """

    name: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveSkipped(Event):
    """A call of ``save()`` saved nothing because a save was in flight. Every worker.

    `skipped`: how many have so far.
    """

    skipped: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardWritten(Event):
    """This worker's share is in its files. Every worker.

    Attributes:
      name: The checkpoint's name.
      bytes: How many bytes it wrote.
      seconds: How long that took, of which
      write_seconds: to write them, and then
      flush_seconds: to force them to stable storage; 0 or so if they are not.
    """

    name: str
    bytes: int
    seconds: float
    write_seconds: float
    flush_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered(Event):
    """The reports of all workers are there. The chief.

    Attributes:
      name: The checkpoint's name.
      seconds: How long the chief waited for them when it had written its own share.
      last: The worker whose report was the last to come; the chief itself if it is alone.
    """

    name: str
    seconds: float
    last: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Committed(Event):
    """The checkpoint is committed. The chief, and then each worker when it has been told.

    Attributes:
      name: The checkpoint's name.
      path: Its path.
      step: What its manifest calls the step.
      bytes: Bytes of all tensors in it, by the plan.
      seconds: Since this worker began to save.
      metrics: What ``save(metrics=…)`` was given on this worker.
    """

    name: str
    path: str
    step: int
    bytes: int
    seconds: float
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruned(Event):
    """Retention has deleted the checkpoints `names`. The chief; only if there are any."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveFailed(Event):
    """A save has ended with an error. Every worker that still lives.

    Attributes:
      name: The checkpoint's name.
      error: The class of the error: "StorageFullError".
      message: Its text.
      culprit: The worker where it happened; None if it concerns nobody in particular.
    """

    name: str
    error: str
    message: str
    culprit: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fenced(Event):
    """Another process has taken the directory over: this job saves there no more. Every worker.

    After `SaveFailed`. `by`: which host and process, if it could be read.
    """

    by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored(Event):
    """All workers have restored `name`, which took `seconds`. Every worker."""

    name: str
    path: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FellBack(Event):
    """`name` is damaged, because of `reason`, and an older one is tried. The chief."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestoreFailed(Event):
    """A restore has ended with an error; the fields are those of `SaveFailed`. Every worker."""

    error: str
    message: str
    culprit: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preempted(Event):
    """This worker was told to end, by SIGTERM or a watcher, in `seconds_left` if that is known.

    Only with `distckpt.handle_preemption`.
    """

    seconds_left: float | None
