"""The parsers of bytes that come from a shared disk, and intact input to start with."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from distckpt.core import layout, manifest_json, rollback_record
from distckpt.core import manifest as manifests
from distckpt.core.manifest import FileRecord, Replaced, StateRecord
from distckpt.core.rollback_record import Leaving, Rollback
from distckpt.core.tensorflow_format import checkpoint_state, index_reader
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState
from distckpt.core.tensorflow_format.index_merge import merge_indexes
from distckpt.core.tensorflow_format.tensor_checksum import verify_entry
from distckpt.directory.catalog import Catalog
from distckpt.errors import DistckptError
from distckpt.ownership.fencing import Ownership
from distckpt.storage.local import LocalStorage
from tests.unit.kit import bundles, lab

from . import sealed

# A result may take this many times the size of the input, and this much more.
FACTOR, BASE = 200, 1 << 20
NOW = 2e9  # seconds since 1970: later than any honest file
_VALUE = np.zeros(2, np.float32)


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
      name: What it reads.
      parse: Returns, or raises a `DistckptError`.
      seeds: Intact inputs.
      refuses: Whether it raises for damaged input; otherwise it ignores it.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    refuses: bool = True

    def accepts(self, data: bytes) -> bool:
        """Returns whether the parser accepts `data`; raises what the parser must not raise."""
        try:
            self.parse(data)
        except DistckptError:
            return False
        return True


@functools.cache
def targets() -> dict[str, Target]:
    """Returns all parsers, by name."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        chief = lab.Chief(run, max_to_keep=9)
        chief.save("ckpt-1", 1, 3)
        chief.save("ckpt-2", 2)
        index = (run / "ckpt-1.index").read_bytes()
        manifest = (run / "ckpt-1.manifest.json").read_bytes()
        pointer = (run / "checkpoint").read_bytes()
        other = (run / "ckpt-2.index").read_bytes()
    first, second = (bundles.bundle_files([(k, (2,), None, _VALUE)])[0] for k in ("a", "b"))
    sliced, _ = bundles.bundle_files([("w", (4,), (0, 2), _VALUE), ("w", (4,), (2, 4), _VALUE)])
    note = json.dumps({"name": "ckpt-1", "index_crc32c": 1, "reason": "a bit was flipped"})
    untimed = checkpoint_state.render(CheckpointState("ckpt-1", ("ckpt-0", "ckpt-1")))
    words = (b"", b"a", b"bc" * 99)
    leaving = (Leaving("ckpt-2", 7), Leaving("ckpt-3", None))
    back = Rollback(
        "ckpt-1", layout.set_aside_name("20261129-110120", 3), leaving, 5, "", pointer.decode()
    )
    who = json.dumps({"host": "a", "pid": 1, "since": 1.7e9})
    all_kinds = (manifest, _switch(manifest), _with_states(manifest))
    found = (
        Target("manifest", _parse_manifest, all_kinds),
        Target("fields", _parse_fields, tuple(map(sealed.fields, all_kinds))),
        Target("index", index_reader.read_index, (index, other)),
        Target("block", _read_block, tuple(map(sealed.first_block, (index, other, sliced)))),
        Target("parts", lambda data: merge_indexes([data, second]), (first, sliced)),
        Target("strings", lambda data: _verify("string", data), (sealed.strings(*words),)),
        Target("variants", lambda data: _verify("variant", data), (sealed.variants(*words),)),
        Target("checkpoint", checkpoint_state.parse, (pointer, untimed)),
        Target("pointer", _read_pointer, (pointer, untimed), refuses=False),
        Target("note", _read_note, (note.encode(),), refuses=False),
        Target("term", _read_term, (who.encode(),)),
        Target(
            "rollback",
            lambda data: rollback_record.parse(data, "a rollback"),
            (rollback_record.render(back),),
        ),
    )
    return {target.name: target for target in found}


def _parse_manifest(data: bytes) -> object:
    return manifest_json.parse(data, "a manifest")


def _parse_fields(content: bytes) -> object:
    return _parse_manifest(sealed.manifest(content))


def _switch(data: bytes) -> bytes:
    """Returns the manifest of a checkpoint that replaces itself."""
    found = _parse_manifest(data)
    old = Replaced(found.index, tuple(file.name for file in found.files), found)
    return manifest_json.render(dataclasses.replace(found, replaces=old))


def _with_states(data: bytes) -> bytes:
    """Returns the manifest of a checkpoint with states that only single workers have."""
    found = _parse_manifest(data)
    assert isinstance(found, manifests.Manifest)
    prefixes = [layout.worker_prefix(found.name, worker, 2, worker) for worker in range(2)]
    names = [f for p in prefixes for f in (layout.index_name(p), layout.data_name(p, 0, 1))]
    files = tuple(FileRecord(name, 8, 0) for name in names)
    states = tuple(StateRecord(worker, p, 7) for worker, p in enumerate(prefixes))
    return manifest_json.render(
        dataclasses.replace(found, files=(*found.files, *files), worker_states=states)
    )


def _read_block(content: bytes) -> object:
    return index_reader.read_index(sealed.table_of(content))


def _verify(dtype: str, data: bytes) -> object:
    """Checks a tensor of three elements, followed by its checksum."""
    content, checksum = data[:-4], int.from_bytes(data[-4:], "little")
    entry = index_reader.BundleEntry("x", dtype, (3,), 0, 0, len(content), checksum)
    return verify_entry(entry, lambda offset, size: content[offset : offset + size])


def _read_pointer(data: bytes) -> object:
    folder = _folder("pointer")
    (folder / "checkpoint").write_bytes(data)
    catalog = Catalog(LocalStorage(), str(folder))
    return catalog.pointer(), catalog.candidates(NOW)


def _read_note(data: bytes) -> object:
    folder = _folder("note")
    (folder / ".distckpt" / "quarantine" / "ckpt-1.json").write_bytes(data)
    return Catalog(LocalStorage(), str(folder)).quarantined()


def _read_term(data: bytes) -> object:
    """Lets a process read from `data` which process has superseded it."""
    folder = _folder("term")
    terms = folder / ".distckpt" / "terms"
    for file in terms.iterdir():  # or each input would be slower than the one before
        file.unlink()
    ownership = Ownership(LocalStorage(), str(folder), durable=False)
    ownership.take()
    (terms / layout.term_name((ownership.term or 0) + 1)).write_bytes(data)
    return ownership.check()


@functools.cache
def _folder(what: str) -> Path:
    """Returns a directory with a checkpoint, for one target alone."""
    path = Path(_temporary().name) / what
    lab.Chief(path, max_to_keep=9).save("ckpt-1", 1)
    (path / ".distckpt" / "quarantine").mkdir()
    return path


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()
