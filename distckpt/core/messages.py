"""What the workers tell each other during a save or a restore, as plain data that turns to JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

from distckpt.core.phases import Phase
from distckpt.core.plan import Entry
from distckpt.errors import Failure


@dataclasses.dataclass(frozen=True)
class Roll:
    """Chief to all, before a collective read: everybody has come.

    Attributes:
      fingerprint: `Plan.fingerprint` of the chief's plan.
      complete: Whether all workers have the same; only then may anybody begin to read.
    """

    fingerprint: str
    complete: bool


@dataclasses.dataclass(frozen=True)
class Opening:
    """Chief to all: a save has begun.

    Attributes:
      attempt: The id of the attempt, which stands in the pending folder's name.
      name: The checkpoint's name, e.g. "ckpt-12".
      directory: The directory as the chief was given it, made absolute.
      fingerprint: `Plan.fingerprint` of the chief's plan.
      token: The content of the probe file in the pending folder.
    """

    attempt: str
    name: str
    directory: str
    fingerprint: str
    token: str


class WrittenPiece(NamedTuple):
    """One piece as it stands in a worker's shard: `file` counts within the report's `files`.

    There may be many thousands, so it travels as a row, without field names.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    spec: str
    file: int
    offset: int
    size: int
    crc32c: int


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """A data file of a shard: its name within the pending folder and its size in bytes."""

    name: str
    size: int


@dataclasses.dataclass(frozen=True)
class WrittenState:
    """The bundle with what only this worker has, as it stands in the pending folder.

    Attributes:
      prefix: Its name.
      index: Its index file.
      crc32c: The CRC32C of the index's bytes, not masked.
      files: Its data files, in order.
    """

    prefix: str
    index: WrittenFile
    crc32c: int
    files: tuple[WrittenFile, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """Worker to chief: my shard is written and flushed.

    Attributes:
      worker: The worker's index.
      host: Its host's name.
      pid: Its process.
      seconds: Duration of writing and flushing.
      prefixes: Names within the pending folder of the bundles to merge, in order; empty when the
        plan gave this worker nothing.
      files: The data files of those bundles, in order.
      pieces: What is in them.
      extras: Other files that the state's own savers wrote beside them.
      copies: The checksums of this worker's copies of what others write, see `core.replicas`; None
        if it does not compare.
      own: What only this worker has; None if the program gave nothing of the kind.
      phases: What it did when, in order.
    """

    worker: int
    host: str
    pid: int
    seconds: float
    prefixes: tuple[str, ...]
    files: tuple[WrittenFile, ...]
    pieces: tuple[WrittenPiece, ...]
    extras: tuple[WrittenFile, ...] = ()
    copies: tuple[int, ...] | None = None
    own: WrittenState | None = None
    phases: tuple[Phase, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that the worker wrote, without indexes."""
        own = self.own.files if self.own else ()
        return sum(f.size for f in (*self.files, *self.extras, *own))


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Worker to chief: I cannot take part, and this is why.

    `entries` is sent when the plans differ, so that the chief can name the first difference. They
    travel as rows: when the chief is the one that differs, all others send them.
    """

    worker: int
    failure: Failure
    entries: tuple[Entry, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Chief to all: how it ended.

    Attributes:
      failure: None when it was committed or restored.
      name: The checkpoint's name; None if there was none to restore.
      active: (name, timestamp) of the managed checkpoints, oldest first.
      last_preserved: Seconds since 1970, as in TensorFlow's `checkpoint` file.
      warning: What all should log although it has succeeded, or "".
    """

    failure: Failure | None
    name: str | None = None
    active: tuple[tuple[str, float], ...] = ()
    last_preserved: float = 0.0
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Any to who waits for it: how far this worker has got. Each is told under a key of its own.

    Attributes:
      worker: The worker's index.
      host: Its host's name.
      pid: Its process.
      phase: What it does: "writing".
      done: Bytes of that which are done,
      total: of so many; 0 if they are not counted.
    """

    worker: int
    host: str
    pid: int
    phase: str
    done: int = 0
    total: int = 0


@dataclasses.dataclass(frozen=True)
class Decision:
    """Chief to all: whether this call of ``save()`` saves.

    Attributes:
      save: Whether it does.
      busy: Whether it does not because a save is in flight.
      unasked: For how many calls more the clock will say no, so that nobody need ask.
    """

    save: bool
    busy: bool = False
    unasked: int = 0


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Chief to all: let us do this with that checkpoint.

    Attributes:
      task: "verify" or "restore".
      name: The checkpoint's name.
      directory: The directory as the chief was given it, made absolute.
    """

    task: str
    name: str
    directory: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Worker to chief: what I found. `damaged` tells a bad checkpoint from another failure."""

    worker: int
    failure: Failure | None = None
    damaged: bool = False


def to_json(message: Any) -> str:
    """Returns a message as JSON text."""
    if isinstance(message, Report):
        plain = dataclasses.asdict(dataclasses.replace(message, pieces=()))
        data = {**plain, "pieces": message.pieces}
    elif isinstance(message, Refusal) and message.entries is not None:
        plain = dataclasses.asdict(dataclasses.replace(message, entries=None))
        data = {**plain, "entries": [list(vars(entry).values()) for entry in message.entries]}
    else:
        data = dataclasses.asdict(message)
    return json.dumps(data, separators=(",", ":"))


def roll_from_json(text: str) -> Roll:
    """Returns the `Roll` in `text`."""
    return Roll(**json.loads(text))


def opening_from_json(text: str) -> Opening:
    """Returns the `Opening` in `text`."""
    return Opening(**json.loads(text))


def answer_from_json(text: str) -> Report | Refusal:
    """Returns the `Report` or `Refusal` in `text`."""
    data = json.loads(text)
    if "failure" in data:
        entries = data["entries"]
        if entries is not None:
            entries = tuple(
                Entry(key, dtype, tuple(shape), *rest) for key, dtype, shape, *rest in entries
            )
        return Refusal(data["worker"], Failure.from_json(data["failure"]), entries)
    data["prefixes"] = tuple(data["prefixes"])
    data["files"] = tuple(WrittenFile(**f) for f in data["files"])
    data["extras"] = tuple(WrittenFile(**f) for f in data["extras"])
    data["copies"] = tuple(data["copies"]) if data["copies"] is not None else None
    data["own"] = _state_from_json(data["own"]) if data["own"] is not None else None
    data["phases"] = tuple(Phase(*row) for row in data["phases"])
    data["pieces"] = tuple(
        WrittenPiece(key, dtype, tuple(shape), *rest) for key, dtype, shape, *rest in data["pieces"]
    )
    return Report(**data)


def _state_from_json(data: dict[str, Any]) -> WrittenState:
    return WrittenState(
        data["prefix"],
        WrittenFile(**data["index"]),
        data["crc32c"],
        tuple(WrittenFile(**f) for f in data["files"]),
    )


def outcome_from_json(text: str) -> Outcome:
    """Returns the `Outcome` in `text`."""
    data = json.loads(text)
    return Outcome(
        Failure.from_json(data["failure"]) if data["failure"] else None,
        data["name"],
        tuple((name, stamp) for name, stamp in data["active"]),
        data["last_preserved"],
        data["warning"],
    )


def progress_from_json(text: str) -> Progress:
    """Returns the `Progress` in `text`."""
    return Progress(**json.loads(text))


def decision_from_json(text: str) -> Decision:
    """Returns the `Decision` in `text`."""
    return Decision(**json.loads(text))


def proposal_from_json(text: str) -> Proposal:
    """Returns the `Proposal` in `text`."""
    return Proposal(**json.loads(text))


def verdict_from_json(text: str) -> Verdict:
    """Returns the `Verdict` in `text`."""
    data = json.loads(text)
    failure = Failure.from_json(data["failure"]) if data["failure"] else None
    return Verdict(data["worker"], failure, data["damaged"])
