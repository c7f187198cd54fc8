"""What reads bytes that come from a shared disk, and honest bytes to begin with."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from distckpt.core import bundle, checkpoint_state
from distckpt.core import manifest as manifests
from distckpt.core.bundle_merge import merge_indexes
from distckpt.errors import DistckptError
from distckpt.roles.catalog import Catalog
from distckpt.storage.local import LocalStorage
from tests.unit.roles import lab

# An answer may take so many times the input, and so much besides.
FACTOR, BASE = 200, 1 << 20
_VALUE = np.zeros(2, np.float32)


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
      name: What it reads.
      parse: Returns, or raises a `DistckptError`.
      seeds: Honest inputs.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]

    def accepts(self, data: bytes) -> bool:
        """Returns whether the parser takes `data`; raises what it must not raise."""
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
    first, second = (lab.bundle_files([(k, (2,), None, _VALUE)])[0] for k in ("a", "b"))
    note = json.dumps({"name": "ckpt-1", "index_crc32c": 1, "reason": "a bit was flipped"})
    found = (
        Target("manifest", lambda data: manifests.parse(data, "a manifest"), (manifest,)),
        Target("index", bundle.read_index, (index, other)),
        Target("parts", lambda data: merge_indexes([data, second]), (first,)),
        Target("checkpoint", checkpoint_state.parse, (pointer,)),
        Target("note", _read_note, (note.encode(),)),
    )
    return {target.name: target for target in found}


@functools.cache
def _folder() -> Path:
    path = Path(tempfile.mkdtemp()) / "run"
    lab.Chief(path, max_to_keep=9).save("ckpt-1", 1)
    (path / ".distckpt" / "quarantine").mkdir()
    return path


def _read_note(data: bytes) -> object:
    folder = _folder()
    (folder / ".distckpt" / "quarantine" / "ckpt-1.json").write_bytes(data)
    return Catalog(LocalStorage(), str(folder)).quarantined()
