"""Writes the manifest as JSON, and reads it without trusting its content."""

from __future__ import annotations

import json
import math
from typing import Any

from distckpt.core import layout, manifest_checksum, safe_names
from distckpt.core.manifest import (
    EntryRecord,
    FileRecord,
    IndexRecord,
    Manifest,
    PieceRecord,
    Pointer,
    Replaced,
    Retention,
    StateRecord,
    WorkerRecord,
)
from distckpt.core.protocol.phases import Phase
from distckpt.errors import ManifestError, reason

FORMAT = "distckpt-manifest"
VERSION = 2
_WITHOUT_CHECKSUM = 1  # the previous version, which is read as well


def render(manifest: Manifest) -> bytes:
    """Returns the file's content: a JSON object, with a line for each tensor, and its checksum."""
    body = _to_json(manifest)
    lists = {name: body.pop(name) for name in ("phases", "entries") if name in body}
    head = json.dumps(body, indent=1)[:-2]  # without the closing "\n}"
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for name, rows in lists.items():
        lines = ",\n".join(map(encode, rows))
        head += f',\n "{name}": [\n{lines}\n ]'
    return manifest_checksum.add(f"{head}\n}}".encode())


def parse(data: bytes, source: str = "manifest", *, entries: bool = True) -> Manifest:
    """Returns the manifest that `render` wrote.

    Args:
      data: The file's content.
      source: What to call it in errors: its path.
      entries: If False, the tensors are checked like the rest, but left out: ten thousand of them
        take longer than everything else.

    Raises:
      ManifestError: It is damaged, was changed since it was written, is of a newer version, or
        claims files that are not its own.
    """
    verified = manifest_checksum.verify(data, source)
    try:
        body = json.loads(data)
        found, version = body["format"], body["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestError(
            f"{source} is not a readable manifest ({reason(error)}). The file is damaged, and a "
            "restore skips the checkpoint."
        ) from None
    if found != FORMAT:
        raise ManifestError(f"{source} is not a distckpt manifest (its format is {found!r}).")
    if version not in (VERSION, _WITHOUT_CHECKSUM):
        raise ManifestError(
            f"{source} has manifest version {version!r}; this distckpt reads version {VERSION}. "
            "Use a newer distckpt, or restore the checkpoint with plain TensorFlow."
        )
    if not verified and (version == VERSION or manifest_checksum.FIELD in body):
        raise ManifestError(
            f"{source} was changed after it was written: its checksum is not in its place. "
            "Nothing that it names is read or deleted, and a restore skips the checkpoint."
        )
    try:
        return _from_json(body, entries, verified)
    except ManifestError as error:
        raise ManifestError(
            f"{source}: {error} Nothing that it names is read or deleted, and a restore skips the "
            "checkpoint."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ManifestError(
            f"{source} is damaged ({reason(error)}), and a restore skips the checkpoint."
        ) from None


def _to_json(manifest: Manifest) -> dict[str, Any]:
    m = manifest
    body: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": m.name,
        "step": m.step,
        "term": m.term,
        "sequence": m.sequence,
        "attempt": m.attempt,
        "committed_at": m.committed_at,
        "seconds": m.seconds,
        "follows": vars(m.follows) if m.follows else None,
        "versions": m.versions,
        "workers": [_worker_to_json(w) for w in m.workers],
        "index": vars(m.index),
        "files": [vars(f) for f in m.files],
    }
    if m.worker_states:
        body["worker_states"] = [vars(s) for s in m.worker_states]
    if m.metrics:
        body["metrics"] = {name: _number(value) for name, value in m.metrics.items()}
    if m.retention:
        body["retention"] = vars(m.retention)
    if m.replaces:
        old = m.replaces.manifest
        body["replaces"] = {
            "index": vars(m.replaces.index),
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
    # The phases are a separate list, with one line for each worker.
    return {name: value for name, value in vars(record).items() if name != "phases"}


def _piece_row(piece: PieceRecord) -> list[Any]:
    row: list[Any] = [piece.file, piece.offset, piece.size, piece.crc32c]
    return [*row, piece.spec] if piece.spec else row


def _from_json(body: dict[str, Any], entries: bool, verified: bool) -> Manifest:
    name = safe_names.safe_checkpoint(body["name"])
    replaces = None
    if body.get("replaces") is not None:
        old = body["replaces"]
        if old["manifest"] and old["manifest"].get("replaces"):
            raise ManifestError("a replaced version cannot itself replace another.")
        replaces = Replaced(
            _index(old["index"], name),
            tuple(_file(file, name) for file in old["files"]),
            _from_json(old["manifest"], entries, verified) if old["manifest"] else None,
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
        term=_order(body["term"]),
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
        checksum_verified=verified,
    )


def _number(value: float) -> float | str:
    """Returns a number for JSON, which has neither NaN nor infinity."""
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
    """Returns `name` if that file may be deleted without the checkpoint, as after a failed save.

    So it is neither the index nor the manifest.
    """
    if name in (layout.index_name(checkpoint), layout.manifest_name(checkpoint)):
        raise ManifestError(f"{name!r} is not one of the data files of {checkpoint}.")
    return safe_names.safe_name(name, checkpoint)


def _index(data: dict[str, Any], checkpoint: str) -> IndexRecord:
    name = safe_names.safe_name(data["name"], checkpoint)
    if name != layout.index_name(checkpoint):
        raise ManifestError(f"{name!r} is not the index of {checkpoint}.")
    return IndexRecord(name, _count(data["size"]), _count(data["crc32c"]))


def _entries(rows: list[Any], files: int, wanted: bool) -> tuple[EntryRecord, ...]:
    if not wanted and _are_sound(rows, files):
        return ()
    entries = tuple(_entry(row, files) for row in rows)
    return entries if wanted else ()


def _are_sound(rows: list[Any], files: int) -> bool:
    """Returns whether rows are as `render` writes them; if not, `_entry` decides."""
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
