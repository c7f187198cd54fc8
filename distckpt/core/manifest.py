"""The manifest: the file whose presence commits a checkpoint.

``ckpt-12.manifest.json`` says what was meant to be written: every tensor entry with its pieces
(file, offset, size, checksum), every file with its size, the index with its checksum, and who wrote
it when. docs/manifest.md is the reference of the format.

While an existing checkpoint is being replaced, the manifest holds both versions: the new one, and
under ``replaces`` the old one. Which of them is in force is told by the checksum of the index file,
whose rename is the instant of the switch (see `Manifest.in_force`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from distckpt.core import layout
from distckpt.core.phases import Phase
from distckpt.errors import ManifestError

FORMAT = "distckpt-manifest"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of the checkpoint. `worker` wrote its bytes; `name` is relative to the directory."""

    name: str
    size: int
    worker: int


@dataclasses.dataclass(frozen=True)
class IndexRecord:
    """The merged index: its name, its size in bytes, and the CRC32C of its bytes (not masked)."""

    name: str
    size: int
    crc32c: int


@dataclasses.dataclass(frozen=True)
class PieceRecord:
    """Where a part of a tensor is: which of `Manifest.files`, offset and size in bytes.

    `crc32c` is the masked CRC32C that TensorFlow's writer computed from memory while writing.
    `spec` is the slice spec, "" for a whole tensor.
    """

    file: int
    offset: int
    size: int
    crc32c: int
    spec: str = ""


@dataclasses.dataclass(frozen=True)
class EntryRecord:
    """A tensor of the checkpoint and the pieces it is stored in."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[PieceRecord, ...]


@dataclasses.dataclass(frozen=True)
class WorkerRecord:
    """What one worker did: host and process, bytes it wrote, seconds that took, flush included.

    `phases` tells what it did when, in order; empty if the manifest does not say.
    """

    worker: int
    host: str
    pid: int
    bytes: int
    seconds: float
    phases: tuple[Phase, ...] = ()


@dataclasses.dataclass(frozen=True)
class StateRecord:
    """What only `worker` has: a small checkpoint of its own.

    Attributes:
      worker: Whose.
      prefix: Its name, e.g. "ckpt-12.worker-00001-of-00004". The index and the data files of it are
        among `Manifest.files`.
      crc32c: The CRC32C of its index's bytes, not masked; there the other checksums are.
    """

    worker: int
    prefix: str
    crc32c: int


@dataclasses.dataclass(frozen=True)
class Pointer:
    """TensorFlow's file `checkpoint` at one moment: what tells whether it is still the same.

    Attributes:
      crc32c: The CRC32C of its bytes, not masked.
      index_crc32c: That of the index of the newest checkpoint it names, if the file has no times:
        ``tf.train.Checkpoint.save`` writes the same bytes again for a name that it saves again.
        None if it has times, or if there is no such index.
    """

    crc32c: int
    index_crc32c: int | None = None


@dataclasses.dataclass(frozen=True)
class Retention:
    """What the job that saved a checkpoint keeps: its manager's arguments, for others to read.

    Attributes:
      max_to_keep: How many of the newest; None for all.
      every_hours: As ``keep_checkpoint_every_n_hours``; None for none.
      keep: `ManagerOptions.keep` as a text, "" for none.
    """

    max_to_keep: int | None = None
    every_hours: float | None = None
    keep: str = ""


@dataclasses.dataclass(frozen=True)
class Replaced:
    """The version that is being replaced: its index, its other files, its manifest if any."""

    index: IndexRecord
    files: tuple[str, ...]
    manifest: Manifest | None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A committed checkpoint.

    Attributes:
      name: The checkpoint's name, e.g. "ckpt-12".
      step: The training step if a step counter was given, else the checkpoint's number.
      epoch: The epoch of the chief that committed it.
      sequence: Counts the commits of that epoch, from 1. (epoch, sequence) orders checkpoints.
      attempt: The id of the attempt.
      committed_at: Seconds since 1970, by the chief's clock.
      seconds: Duration of the save on the chief up to the commit.
      index: The index file.
      files: The data files, by the number in their names, then others.
      entries: The tensors, sorted by key.
      workers: One record for each worker.
      versions: Versions of distckpt, tensorflow and python.
      replaces: While this checkpoint replaces one of the same name: that one.
      follows: TensorFlow's file as the commit found it; None if there was none, or if the manifest
        does not say. As long as the file is the same, it does not know of this checkpoint.
      worker_states: What only single workers have: one for each worker, or none at all.
      metrics: What ``save(metrics=…)`` was given.
      retention: What the job keeps; None if the manifest does not say.
    """

    name: str
    step: int
    epoch: int
    sequence: int
    attempt: str
    committed_at: float
    seconds: float
    index: IndexRecord
    files: tuple[FileRecord, ...]
    entries: tuple[EntryRecord, ...]
    workers: tuple[WorkerRecord, ...]
    versions: dict[str, str]
    replaces: Replaced | None = None
    follows: Pointer | None = None
    worker_states: tuple[StateRecord, ...] = ()
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    retention: Retention | None = None

    @property
    def order(self) -> tuple[int, int]:
        """What "newer" means: greater by epoch, then by the order of commits in it."""
        return (self.epoch, self.sequence)

    @property
    def bytes(self) -> int:
        """Total size of the checkpoint's files, without the manifest."""
        return self.index.size + sum(f.size for f in self.files)

    @property
    def claims(self) -> frozenset[str]:
        """Names of all files, indexes apart, that this manifest or the one it replaces needs."""
        old = self.replaces.files if self.replaces else ()
        return frozenset(f.name for f in self.files) | frozenset(old)

    def tells_of(self, index: IndexRecord) -> bool:
        """Returns whether `index` is that of this version or of the one that it replaces."""
        return index == self.index or (self.replaces is not None and index == self.replaces.index)

    def in_force(self, index_crc32c: int) -> Manifest | None:
        """Returns the manifest of the version on disk, told by the index file's CRC32C.

        Returns None if the version on disk is the replaced one and had no manifest.

        Raises:
          ManifestError: The index belongs to neither version.
        """
        if index_crc32c == self.index.crc32c:
            return self
        if self.replaces and index_crc32c == self.replaces.index.crc32c:
            return self.replaces.manifest
        raise ManifestError(
            f"{self.index.name} is not the index that the manifest of {self.name} was written for "
            f"(checksum {index_crc32c:#010x}, expected {self.index.crc32c:#010x}). The checkpoint "
            "is damaged or was overwritten by another program; restore an older one."
        )


def render(manifest: Manifest) -> bytes:
    """Returns the file's content: one JSON object, with one line for each tensor entry."""
    body = _to_json(manifest)
    lists = {name: body.pop(name) for name in ("phases", "entries") if name in body}
    head = json.dumps(body, indent=1)[:-2]  # without the closing "\n}"
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for name, rows in lists.items():
        lines = ",\n".join(map(encode, rows))
        head += f',\n "{name}": [\n{lines}\n ]'
    return f"{head}\n}}\n".encode()


def parse(data: bytes, source: str = "manifest", *, entries: bool = True) -> Manifest:
    """Returns the manifest that `render` wrote.

    Args:
      data: The file's content.
      source: What to call it in errors: its path.
      entries: If False, the tensors are checked like the rest, but left out: ten thousand of them
        take longer than all else.

    Raises:
      ManifestError: It is damaged, of a newer version, or claims files that are not its own.
    """
    try:
        body = json.loads(data)
        found, version = body["format"], body["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestError(
            f"{source} is not a readable manifest ({type(error).__name__}: {error}). The file is "
            "damaged; the checkpoint cannot be trusted. Restore an older one."
        ) from None
    if found != FORMAT:
        raise ManifestError(f"{source} is not a distckpt manifest (its format is {found!r}).")
    if version != VERSION:
        raise ManifestError(
            f"{source} has manifest version {version!r}; this distckpt reads version {VERSION}. "
            "Use a newer distckpt, or restore the checkpoint with plain TensorFlow."
        )
    try:
        return _from_json(body, entries)
    except ManifestError as error:
        raise ManifestError(
            f"{source}: {error} Nothing is read or deleted on its word. Restore an older "
            "checkpoint."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ManifestError(
            f"{source} is damaged ({type(error).__name__}: {error}). Restore an older checkpoint."
        ) from None


def _to_json(manifest: Manifest) -> dict[str, Any]:
    m = manifest
    body: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": m.name,
        "step": m.step,
        "epoch": m.epoch,
        "sequence": m.sequence,
        "attempt": m.attempt,
        "committed_at": m.committed_at,
        "seconds": m.seconds,
        "follows": dataclasses.asdict(m.follows) if m.follows else None,
        "versions": m.versions,
        "workers": [_worker_to_json(w) for w in m.workers],
        "index": dataclasses.asdict(m.index),
        "files": [dataclasses.asdict(f) for f in m.files],
    }
    if m.worker_states:
        body["worker_states"] = [dataclasses.asdict(s) for s in m.worker_states]
    if m.metrics:
        body["metrics"] = {name: _number(value) for name, value in m.metrics.items()}
    if m.retention:
        body["retention"] = dataclasses.asdict(m.retention)
    if m.replaces:
        old = m.replaces.manifest
        body["replaces"] = {
            "index": dataclasses.asdict(m.replaces.index),
            "files": m.replaces.files,
            "manifest": _to_json(old) if old else None,
        }
    if any(w.phases for w in m.workers):
        body["phases"] = [w.phases for w in m.workers]
    body["entries"] = [
        [e.key, e.dtype, e.shape, [_piece_row(p) for p in e.pieces]] for e in m.entries
    ]
    return body


def _worker_to_json(record: WorkerRecord) -> dict[str, Any]:
    plain = dataclasses.asdict(dataclasses.replace(record, phases=()))
    del plain["phases"]  # they are a list of their own, one line for each worker
    return plain


def _piece_row(piece: PieceRecord) -> list[Any]:
    row: list[Any] = [piece.file, piece.offset, piece.size, piece.crc32c]
    return [*row, piece.spec] if piece.spec else row


def _from_json(body: dict[str, Any], entries: bool = True) -> Manifest:
    name = layout.safe_checkpoint(body["name"])
    replaces = None
    if body.get("replaces") is not None:
        old = body["replaces"]
        if old["manifest"] and old["manifest"].get("replaces"):
            raise ManifestError("a replaced version cannot itself replace another.")
        replaces = Replaced(
            _index(old["index"], name),
            tuple(_file(file, name) for file in old["files"]),
            _from_json(old["manifest"], entries) if old["manifest"] else None,
        )
        if replaces.manifest and replaces.manifest.name != name:
            raise ManifestError(
                f"{replaces.manifest.name!r} cannot be the version before {name!r}."
            )
    files = tuple(
        FileRecord(_file(f["name"], name), _count(f["size"]), _count(f["worker"]))
        for f in body["files"]
    )
    return Manifest(
        name=name,
        step=int(body["step"]),
        epoch=_order(body["epoch"]),
        sequence=_order(body["sequence"]),
        attempt=str(body["attempt"]),
        committed_at=_seconds(body["committed_at"]),
        seconds=_seconds(body["seconds"]),
        index=_index(body["index"], name),
        files=files,
        entries=_entries(body["entries"], len(files), entries),
        workers=_workers(body["workers"], body.get("phases")),
        versions={str(k): str(v) for k, v in body["versions"].items()},
        replaces=replaces,
        follows=_pointer(body["follows"]) if body.get("follows") is not None else None,
        worker_states=_states(body.get("worker_states", ()), name, files),
        metrics={str(k): float(v) for k, v in body.get("metrics", {}).items()},
        retention=_retention(body["retention"]) if body.get("retention") is not None else None,
    )


def _number(value: float) -> float | str:
    """Returns what stands for a number in JSON, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else str(value)


def _retention(data: dict[str, Any]) -> Retention:
    most, hours = data["max_to_keep"], data["every_hours"]
    return Retention(
        None if most is None else _count(most),
        None if hours is None else _seconds(hours),
        str(data["keep"]),
    )


def _workers(rows: list[Any], phases: list[Any] | None) -> tuple[WorkerRecord, ...]:
    if phases is None:
        phases = [()] * len(rows)
    return tuple(
        WorkerRecord(
            _count(w["worker"]),
            str(w["host"]),
            _count(w["pid"]),
            _count(w["bytes"]),
            _seconds(w["seconds"]),
            tuple(Phase(str(name), _seconds(at), _seconds(took)) for name, at, took in did),
        )
        for w, did in zip(rows, phases, strict=True)
    )


def _states(
    rows: list[Any], checkpoint: str, files: tuple[FileRecord, ...]
) -> tuple[StateRecord, ...]:
    states = tuple(_state(row, checkpoint, files) for row in rows)
    if [state.worker for state in states] != list(range(len(states))):
        raise ManifestError(f"the worker states of {checkpoint} are not those of all workers.")
    return states


def _state(data: dict[str, Any], checkpoint: str, files: tuple[FileRecord, ...]) -> StateRecord:
    prefix, worker = data["prefix"], _count(data["worker"])
    parsed = layout.parse_worker_prefix(prefix)
    if parsed is None or (parsed.checkpoint, parsed.worker) != (checkpoint, worker):
        raise ManifestError(f"{prefix!r} is not what only worker {worker} has of {checkpoint}.")
    if all(file.name != layout.index_name(prefix) for file in files):
        raise ManifestError(f"{prefix!r} has no index among the checkpoint's files.")
    return StateRecord(worker, prefix, _count(data["crc32c"]))


def _pointer(data: dict[str, Any]) -> Pointer:
    index = data["index_crc32c"]
    return Pointer(_count(data["crc32c"]), None if index is None else _count(index))


def _file(name: str, checkpoint: str) -> str:
    """Returns the name of a file that may go while the checkpoint stays, as those of a failed save.

    So it is neither the index nor the manifest.
    """
    if name in (layout.index_name(checkpoint), layout.manifest_name(checkpoint)):
        raise ManifestError(f"{name!r} is not one of the data files of {checkpoint}.")
    return layout.safe_name(name, checkpoint)


def _index(data: dict[str, Any], checkpoint: str) -> IndexRecord:
    name = layout.safe_name(data["name"], checkpoint)
    if name != layout.index_name(checkpoint):
        raise ManifestError(f"{name!r} is not the index of {checkpoint}.")
    return IndexRecord(name, _count(data["size"]), _count(data["crc32c"]))


def _entries(rows: list[Any], files: int, wanted: bool) -> tuple[EntryRecord, ...]:
    if not wanted and _are_sound(rows, files):
        return ()
    entries = tuple(_entry(row, files) for row in rows)
    return entries if wanted else ()


def _are_sound(rows: list[Any], files: int) -> bool:
    """Returns whether rows are as `render` writes them; if not, `_entry` has the last word."""
    try:
        for _key, _dtype, shape, pieces in rows:
            for size in shape:
                if type(size) is not int:
                    return False
            for file, offset, size, crc32c, *_spec in pieces:
                if not (type(file) is type(offset) is type(size) is type(crc32c) is int):
                    return False
                if not (0 <= file < files and offset >= 0 and size >= 0):
                    return False
    except (ValueError, TypeError):
        return False
    return True


def _entry(row: list[Any], files: int) -> EntryRecord:
    key, dtype, shape, pieces = row
    records = tuple(
        PieceRecord(int(p[0]), int(p[1]), int(p[2]), int(p[3]), str(p[4]) if len(p) > 4 else "")
        for p in pieces
    )
    for p in records:
        if not 0 <= p.file < files or p.offset < 0 or p.size < 0:
            raise ManifestError(f"entry {key!r} points outside the checkpoint's files.")
    return EntryRecord(str(key), str(dtype), tuple(int(d) for d in shape), records)


def _count(value: Any) -> int:
    number = int(value)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


def _order(value: Any) -> int:
    number = _count(value)
    if number > layout.LARGEST_NUMBER:
        raise ValueError(f"{number} is too large")
    return number


def _seconds(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):  # Python's JSON has NaN and Infinity
        raise ValueError(f"{number} is not a number of seconds")
    return number
