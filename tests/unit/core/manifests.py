"""Manifests for tests: arbitrary ones, an example, and one that replaces an older version."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import strategies as st

from distckpt.core import manifest_checksum, manifest_json
from distckpt.core.manifest import (
    EntryRecord,
    FileRecord,
    IndexRecord,
    Manifest,
    PieceRecord,
    Pointer,
    Replaced,
    StateRecord,
    WorkerRecord,
)
from distckpt.core.protocol.phases import Phase

COUNT = st.integers(0, 2**63)

ORDER = st.integers(0, 10**18 - 1)

CRC = st.integers(0, 2**32 - 1)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

NAME = st.from_regex(r"[a-z]{1,6}[-.][0-9]{1,4}", fullmatch=True)

SECONDS = st.floats(0, 1e12, allow_nan=False)

PHASES = st.lists(st.builds(Phase, TEXT, SECONDS, SECONDS), max_size=3).map(tuple)

WORKERS = st.builds(WorkerRecord, COUNT, TEXT, COUNT, COUNT, SECONDS, PHASES)


@st.composite
def manifest_values(draw, name=None):
    replaceable = name is None
    name = draw(NAME) if replaceable else name
    own = st.integers(0, 99).map(lambda n: f"{name}.data-{n:05d}-of-00100")
    files = tuple(draw(st.lists(st.builds(FileRecord, own, COUNT, st.integers(0, 99)), max_size=4)))
    piece = st.builds(PieceRecord, st.integers(0, max(0, len(files) - 1)), COUNT, COUNT, CRC, TEXT)
    pieces = st.lists(piece, max_size=3).map(tuple) if files else st.just(())
    states = tuple(
        StateRecord(worker, f"{name}.worker-{worker:05d}-of-00004.v1", draw(CRC))
        for worker in range(draw(st.integers(0, 3)))
    )
    files += tuple(FileRecord(f"{state.prefix}.index", draw(COUNT), 0) for state in states)
    entry = st.builds(EntryRecord, TEXT, TEXT, st.lists(COUNT, max_size=4).map(tuple), pieces)
    index = st.builds(IndexRecord, st.just(f"{name}.index"), COUNT, CRC)
    replaces = None
    if replaceable and draw(st.booleans()):
        old = draw(st.none() | manifest_values(name))
        names = tuple(draw(st.lists(own, max_size=3)))
        replaces = Replaced(draw(index), names, old)
    return Manifest(
        name=name,
        step=draw(st.integers(-(2**63), 2**63)),
        term=draw(ORDER),
        sequence=draw(ORDER),
        attempt=draw(TEXT),
        committed_at=draw(SECONDS),
        seconds=draw(SECONDS),
        index=draw(index),
        files=files,
        entries=tuple(draw(st.lists(entry, max_size=4))),
        workers=tuple(draw(st.lists(WORKERS, max_size=3))),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        replaces=replaces,
        follows=draw(st.none() | st.builds(Pointer, CRC, st.none() | CRC)),
        worker_states=states,
    )


def example_manifest(**changes):
    found = Manifest(
        name="ckpt-12",
        step=1200,
        term=3,
        sequence=4,
        attempt="00000003-000004-a1b2c3d4",
        committed_at=1.7e9,
        seconds=0.25,
        index=IndexRecord("ckpt-12.index", 300, 7),
        files=(FileRecord("ckpt-12.data-00000-of-00001", 4096, 0),),
        entries=(EntryRecord("w", "float32", (32, 32), (PieceRecord(0, 0, 4096, 9),)),),
        workers=(WorkerRecord(0, "host", 1, 4096, 0.2),),
        versions={"tensorflow": "2.21"},
        follows=Pointer(11, 12),
    )
    return dataclasses.replace(found, **changes)


OLD = example_manifest(
    sequence=2,
    index=IndexRecord("ckpt-12.index", 200, 5),
    files=(
        FileRecord("ckpt-12.data-00000-of-00002", 1, 0),
        FileRecord("ckpt-12.worker-00000-of-00001.index", 3, 0),
        FileRecord("ckpt-12.worker-00000-of-00001.data-00000-of-00001", 4, 0),
    ),
    entries=(),
    worker_states=(StateRecord(0, "ckpt-12.worker-00000-of-00001", 8),),
)

SWITCH = example_manifest(replaces=Replaced(OLD.index, ("ckpt-12.data-00000-of-00002",), OLD))

DATA = manifest_json.render(SWITCH)


def with_checksum(body):
    """Returns a file with the content `body` and a checksum that is right."""
    content = {key: value for key, value in body.items() if key != "checksum"}
    return manifest_checksum.add(json.dumps(content).encode())


def part_at(body, path):
    """Returns the part of a JSON value that is at `path`."""
    for key in path:
        body = body[key]
    return body


def replaced(path, value):
    """Returns the file `DATA` with another value at `path`, and with a checksum that is right."""
    body = json.loads(DATA)
    part_at(body, path[:-1])[path[-1]] = value
    return with_checksum(body)
