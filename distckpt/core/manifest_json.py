"""Writes the manifest as JSON, and reads it without trusting its content."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

from distckpt.core import layout, manifest_checksum, manifest_entries, safe_names
from distckpt.core.manifest import (
    FileRecord,
    Head,
    IndexRecord,
    Manifest,
    Pointer,
    Replaced,
    Retention,
    StateRecord,
    WorkerRecord,
)
from distckpt.core.protocol.phases import Phase
from distckpt.core.units import json_number
from distckpt.errors import ManifestError, reason

FORMAT = "distckpt-manifest"
VERSION = 3
_WITHOUT_HEAD = 2  # previous versions, which are read as well
_WITHOUT_CHECKSUM = 1
# The bytes to read of a file for `parse_head`. A head has about 1,200, and its metrics.
HEAD_SIZE = 8192


def render(manifest: Manifest) -> bytes:
    """Returns the file's content: a JSON object, which begins with the head."""
    head = manifest_checksum.add_to_head(_open(_head_to_json(manifest)))
    body = _body_to_json(manifest)
    lists = {
        name: body.pop(name) for name in ("phases", "entries") if isinstance(body.get(name), list)
    }
    content = [head, b",", _open(body)[1:]]
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for name, rows in lists.items():
        lines = ",\n".join(map(encode, rows))
        content.append(f',\n "{name}": [\n{lines}\n ]'.encode())
    return manifest_checksum.add(b"".join([*content, b"\n}"]))


def parse_head(data: bytes, source: str = "manifest") -> Head | None:
    """Returns the head of the manifest that `render` wrote.

    Returns None if the head must be taken from the whole manifest, by `parse`: it is longer than
    `HEAD_SIZE`, the manifest is of an older version, or the checkpoint is being replaced.

    Args:
      data: The file's first `HEAD_SIZE` bytes, or its whole content if that is less.
      source: What to call the file in errors: its path.

    Raises:
      ManifestError: The head is damaged, or was changed since it was written. The rest of the
        manifest is not looked at, unless it is in `data`.
    """
    if len(data) < HEAD_SIZE:
        return parse(data, source, entries=False)
    head = manifest_checksum.head_in(data, source)
    if head is None:
        return None
    body = _loaded(head, source)
    if body.get("replaces") is not None:
        return None
    with _explained(source):
        return Head(**_head_from_json(body), checksum_verified=True)


def parse(data: bytes, source: str = "manifest", *, entries: bool = True) -> Manifest:
    """Returns the manifest that `render` wrote.

    Args:
      data: The file's content.
      source: What to call it in errors: its path.
      entries: If False, the tensors are left out: ten thousand of them take longer than everything
        else.

    Raises:
      ManifestError: It is damaged, was changed since it was written, is of a newer version, or
        claims files that are not its own.
    """
    verified = manifest_checksum.verify(data, source)
    body = _loaded(data, source)
    if not verified and (body["version"] != _WITHOUT_CHECKSUM or manifest_checksum.FIELD in body):
        raise ManifestError(
            f"{source} was changed after it was written: its checksum is not in its place. "
            "Nothing that it names is read or deleted, and a restore skips the checkpoint."
        )
    if body["version"] == VERSION and manifest_checksum.HEAD_FIELD not in body:
        raise ManifestError(
            f"{source} is damaged (its head has no checksum), and a restore skips the checkpoint."
        )
    with _explained(source):
        return _from_json(body, entries, verified)


def _loaded(data: bytes, source: str) -> dict[str, Any]:
    """Returns the JSON object in `data`, of a version that can be read."""
    try:
        body: dict[str, Any] = json.loads(data)
        found, version = body["format"], body["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestError(
            f"{source} is not a readable manifest ({reason(error)}). The file is damaged, and a "
            "restore skips the checkpoint."
        ) from None
    if found != FORMAT:
        raise ManifestError(f"{source} is not a distckpt manifest (its format is {found!r}).")
    if version not in (VERSION, _WITHOUT_HEAD, _WITHOUT_CHECKSUM):
        raise ManifestError(
            f"{source} has manifest version {version!r}; this distckpt reads version {VERSION}. "
            "Use a newer distckpt, or restore the checkpoint with plain TensorFlow."
        )
    return body


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except ManifestError as error:
        raise ManifestError(
            f"{source}: {error} Nothing that it names is read or deleted, and a restore skips the "
            "checkpoint."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ManifestError(
            f"{source} is damaged ({reason(error)}), and a restore skips the checkpoint."
        ) from None


def _open(value: dict[str, Any]) -> bytes:
    """Returns a JSON object without its end."""
    return json.dumps(value, indent=1)[:-2].encode()


def _head_to_json(manifest: Manifest) -> dict[str, Any]:
    m = manifest
    head: dict[str, Any] = {
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
        "index": vars(m.index),
    }
    if m.metrics:
        head["metrics"] = {name: json_number(value) for name, value in m.metrics.items()}
    if m.retention:
        head["retention"] = vars(m.retention)
    if m.replaces:
        old = m.replaces.manifest
        head["replaces"] = {
            "index": vars(m.replaces.index),
            "files": m.replaces.files,
            "manifest": {**_head_to_json(old), **_body_to_json(old)} if old else None,
        }
    return head


def _body_to_json(manifest: Manifest) -> dict[str, Any]:
    m = manifest
    body: dict[str, Any] = {
        "workers": [_worker_to_json(w) for w in m.workers],
        "files": [vars(f) for f in m.files],
    }
    if m.worker_states:
        body["worker_states"] = [vars(s) for s in m.worker_states]
    if any(w.phases for w in m.workers):
        body["phases"] = [w.phases for w in m.workers]
    body["entries"] = manifest_entries.to_json(m.entries)
    return body


def _worker_to_json(record: WorkerRecord) -> dict[str, Any]:
    # The phases are a separate list, with one line for each worker.
    return {name: value for name, value in vars(record).items() if name != "phases"}


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
        **_head_from_json(body),
        files=files,
        entries=manifest_entries.from_json(body["entries"], len(files), entries),
        workers=_workers(body["workers"], body.get("phases")),
        replaces=replaces,
        worker_states=_states(body.get("worker_states", ()), name, files),
        checksum_verified=verified,
    )


def _head_from_json(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a `Head`, except for `checksum_verified`."""
    name = safe_names.safe_checkpoint(body["name"])
    return {
        "name": name,
        "step": int(body["step"]),
        "term": _order(body["term"]),
        "sequence": _order(body["sequence"]),
        "attempt": str(body["attempt"]),
        "committed_at": _seconds(body["committed_at"]),
        "seconds": _seconds(body["seconds"]),
        "versions": {str(k): str(v) for k, v in body["versions"].items()},
        "index": _index(body["index"], name),
        "follows": _pointer(body["follows"]) if body.get("follows") is not None else None,
        "metrics": {str(k): float(v) for k, v in body.get("metrics", {}).items()},
        "retention": _retention(body["retention"]) if body.get("retention") is not None else None,
    }


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
