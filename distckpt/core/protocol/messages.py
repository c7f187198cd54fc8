"""The messages of a save or a restore, as plain data with a JSON form."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import msgspec

from distckpt.core import attempts
from distckpt.core.protocol import moment as moments
from distckpt.core.protocol.moment import NOWHERE, Moment
from distckpt.core.protocol.phases import Phase
from distckpt.core.protocol.write_plan import Entry
from distckpt.errors import Failure


@dataclasses.dataclass(frozen=True)
class Call:
    """Chief to all: one of its calls, an entry of the log that keeps the workers in step.

    Attributes:
      kind: "save" or "restore".
      moment: The chief's moment when it made the call.
      failure: Why the call has failed; None if it has not.
      late: Whether the failure is that of the previous background save.
      save: Whether the call saves.
      busy: Whether it does not save because a save is in flight.
      background: Whether the save goes on during training.
      name: The name of the checkpoint to be saved.
      counter: The chief's ``save_counter``, which the other workers take over.
      step: The step counter; without one, how often the chief has called ``save()``.
      rest_until: Before this step no save will be due by the clock, so no worker needs to ask.
      word: The value that the other workers take over before they save, if the call has a
        condition of its own; see `calls.save_request.Condition`.
    """

    kind: str
    moment: Moment
    failure: Failure | None = None
    late: bool = False
    save: bool = False
    busy: bool = False
    background: bool = False
    name: str = ""
    counter: int = 0
    step: float = 0
    rest_until: float = 0
    word: float | None = None


@dataclasses.dataclass(frozen=True)
class Rendezvous:
    """Chief to all, before a collective read: all workers have come.

    Attributes:
      fingerprint: `Plan.fingerprint` of the chief's plan.
      complete: Whether all workers have the same fingerprint; only then may reading begin.
    """

    fingerprint: str
    complete: bool


@dataclasses.dataclass(frozen=True)
class Opening:
    """Chief to all: a save has begun.

    Attributes:
      attempt: The id of the attempt, which is part of the pending folder's name.
      name: The checkpoint's name, e.g. "ckpt-12".
      directory: The directory as the chief was given it, made absolute.
      fingerprint: `Plan.fingerprint` of the chief's plan.
      token: The content of the probe file in the pending folder.
      moment: The chief's moment.
    """

    attempt: str
    name: str
    directory: str
    fingerprint: str
    token: str
    moment: Moment = NOWHERE

    @property
    def folder(self) -> str:
        """The name of the attempt's pending folder."""
        return attempts.pending_name(self.name, self.attempt)


class WrittenPiece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One piece in a worker's shard: `file` counts within the report's `files`.

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
    """The bundle with this worker's own state, in the pending folder.

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
      pieces: The pieces in them.
      extras: Other files that the state's own savers wrote.
      copies: The checksums of this worker's copies of pieces that other workers write (see
        `replica_check`); None if this worker does not compare.
      own: This worker's own state; None if the program gave none.
      phases: The worker's phases, in order.
      moment: The worker's moment.
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
    moment: Moment = NOWHERE

    @property
    def bytes(self) -> int:
        """Bytes that the worker wrote, without indexes."""
        own = self.own.files if self.own else ()
        return sum(f.size for f in (*self.files, *self.extras, *own))


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Worker to chief: I cannot take part, for this reason.

    `entries` is sent when the plans differ, so that the chief can name the first differences. They
    are few, and travel as rows: if the chief's plan is the odd one, all other workers send them.

    Attributes:
      worker: The worker's index.
      failure: The reason.
      entries: Some of the worker's entries, if these differ: all of `buckets`.
      moment: The worker's moment; None if it has read the chief's entry for this call. With None
        the refusal counts for any moment; otherwise it is ignored if it precedes the chief's call.
      buckets: The groups of `Plan.differing` that `entries` are of.
    """

    worker: int
    failure: Failure
    entries: tuple[Entry, ...] | None = None
    moment: Moment | None = None
    buckets: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Chief to all: how the save or restore ended.

    Attributes:
      failure: None if it was committed or restored.
      name: The checkpoint's name; None if there was none to restore.
      active: (name, timestamp) of the managed checkpoints, oldest first.
      last_preserved: Seconds since 1970, as in TensorFlow's `checkpoint` file.
      warning: What all should log in spite of success, or "".
    """

    failure: Failure | None
    name: str | None = None
    active: tuple[tuple[str, float], ...] = ()
    last_preserved: float = 0.0
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Any to the workers that wait for it: its progress. Each is published under a new key.

    Attributes:
      worker: The worker's index.
      host: Its host's name.
      pid: Its process.
      phase: The current phase: "writing".
      done: Bytes done in this phase.
      total: Bytes of the whole phase; 0 if they are not counted.
    """

    worker: int
    host: str
    pid: int
    phase: str
    done: int = 0
    total: int = 0


@dataclasses.dataclass(frozen=True)
class Decision:
    """Chief to all: whether there is time for a save."""

    save: bool


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Chief to all: do this task with this checkpoint.

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


# Many pieces are last in a report, so that msgspec can write and read them, ten times faster.
_PIECES = ',"pieces":'
_decoder = msgspec.json.Decoder(tuple[WrittenPiece, ...])


def to_json(message: Any) -> str:
    """Returns a message as JSON text."""
    if isinstance(message, Report):
        rest = _encode({name: part for name, part in vars(message).items() if name != "pieces"})
        return f"{rest[:-1]}{_PIECES}{_rows(message.pieces)}}}"
    return _encode(message)


def _plain(part: Any) -> Any:
    """Returns a part of a message for JSON: an entry as a row, since there may be many of them."""
    return msgspec.structs.astuple(part) if isinstance(part, Entry) else vars(part)


_encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def _rows(pieces: tuple[WrittenPiece, ...]) -> str:
    with contextlib.suppress(UnicodeEncodeError):
        rows = msgspec.json.encode(pieces)
        if rows.isascii():
            return rows.decode()
    return json.dumps(msgspec.to_builtins(pieces), separators=(",", ":"))


def _pieces_from_rows(rows: str) -> tuple[WrittenPiece, ...]:
    try:
        return _decoder.decode(rows)
    except msgspec.DecodeError:  # foreign keys, which are no Unicode
        return msgspec.convert(json.loads(rows), tuple[WrittenPiece, ...])


def call_from_json(text: str) -> Call:
    """Returns the `Call` in `text`."""
    data = json.loads(text)
    failure = Failure.from_json(data["failure"]) if data["failure"] else None
    data["failure"] = failure
    data["moment"] = moments.from_json(data["moment"])
    return Call(**data)


def rendezvous_from_json(text: str) -> Rendezvous:
    """Returns the `Rendezvous` in `text`."""
    return Rendezvous(**json.loads(text))


def opening_from_json(text: str) -> Opening:
    """Returns the `Opening` in `text`."""
    data = json.loads(text)
    data["moment"] = moments.from_json(data["moment"])
    return Opening(**data)


def answer_from_json(text: str) -> Report | Refusal:
    """Returns the `Report` or `Refusal` in `text`."""
    plain, mark, pieces = text.partition(_PIECES)  # in no text of the JSON: it has its quotes
    data = json.loads(f"{plain}}}" if mark else plain)
    if "failure" in data:
        entries = data["entries"]
        if entries is not None:
            entries = tuple(
                Entry(key, dtype, tuple(shape), *rest) for key, dtype, shape, *rest in entries
            )
        moment = moments.from_json(data["moment"]) if data["moment"] else None
        failure, buckets = Failure.from_json(data["failure"]), tuple(data["buckets"])
        return Refusal(data["worker"], failure, entries, moment, buckets)
    data["prefixes"] = tuple(data["prefixes"])
    data["files"] = tuple(WrittenFile(**f) for f in data["files"])
    data["extras"] = tuple(WrittenFile(**f) for f in data["extras"])
    data["copies"] = tuple(data["copies"]) if data["copies"] is not None else None
    data["own"] = _state_from_json(data["own"]) if data["own"] is not None else None
    data["phases"] = tuple(Phase(*row) for row in data["phases"])
    data["moment"] = moments.from_json(data["moment"])
    data["pieces"] = _pieces_from_rows(pieces[:-1])
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
