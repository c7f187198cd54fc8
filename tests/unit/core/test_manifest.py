from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from distckpt.core import manifest as manifests
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
from distckpt.core.phases import Phase
from distckpt.errors import ManifestError

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
        epoch=draw(ORDER),
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
        epoch=3,
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
DATA = manifests.render(SWITCH)


@settings(max_examples=200, deadline=None)
@given(manifest_values())
def test_what_was_rendered_is_what_is_parsed(found):
    assert manifests.parse(manifests.render(found)) == found


def test_it_is_one_json_object_with_a_line_for_each_entry():
    found = example_manifest(entries=example_manifest().entries * 3)
    data = manifests.render(found)
    body = json.loads(data)
    assert body["format"] == "distckpt-manifest"
    assert body["version"] == 1
    assert len(body["entries"]) == 3
    assert data.count(b'\n["w",') == 3
    assert data.endswith(b"\n")


def test_an_empty_state_has_a_manifest_too():
    found = example_manifest(files=(), entries=(), workers=(), versions={})
    assert manifests.parse(manifests.render(found)) == found


# --- Damage


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"null")
@example(b"[]")
@example(b"{}")
@example(b"[" * 100_000)
@example(b'{"format": "distckpt-manifest", "version": 1}')
@example(b'{"format": "distckpt-manifest", "version": 1e999}')
def test_anything_else_is_refused(data):
    with pytest.raises(ManifestError):
        manifests.parse(data, "here")


@settings(max_examples=800, deadline=None)
@given(
    st.integers(0, len(DATA) - 1),
    st.integers(0, 255),
    st.sampled_from(["set", "del", "cut", "dup"]),
)
def test_a_damaged_manifest_is_parsed_or_refused_and_nothing_else(position, byte, how):
    data = bytearray(DATA)
    if how == "set":
        data[position] = byte
    elif how == "del":
        del data[position : position + 1 + byte % 8]
    elif how == "cut":
        del data[position:]
    else:
        data[position:position] = data[max(0, position - byte) : position]
    check_parsed_or_refused(bytes(data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def paths(value, so_far=()):
    """Yields the path to every part of a JSON value."""
    yield so_far
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths(value[key], (*so_far, key))


PATHS = [path for path in paths(json.loads(DATA)) if path]


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(PATHS), JSON)
@example(("files", 0, "name"), "../evil")
@example(("committed_at",), float("nan"))
@example(("step",), True)
@example(("entries", 0, 3, 0, 0), 10**30)
def test_any_part_may_be_replaced_by_anything(path, value):
    body = json.loads(DATA)
    target = body
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    check_parsed_or_refused(json.dumps(body).encode())


@given(st.sampled_from([path for path in PATHS if isinstance(path[-1], str)]))
def test_no_part_may_be_missing(path):
    assume(path[0] != "replaces" or len(path) > 1)
    assume(path[-1] not in ("tensorflow", "replaces", "follows", "worker_states"))
    assume(path[0] != "replaces" or path[-1] not in ("format", "version"))
    body = json.loads(DATA)
    target = body
    for key in path[:-1]:
        target = target[key]
    del target[path[-1]]
    with pytest.raises(ManifestError):
        manifests.parse(json.dumps(body).encode())


def check_parsed_or_refused(data):
    """Nothing but `ManifestError` is ever raised, and it says where."""
    refusal = None
    try:
        found = manifests.parse(data, "here")
    except ManifestError as error:
        refusal = str(error)
    if refusal is None:
        check_sound(found)
    else:
        assert refusal.startswith("here")


def check_sound(found):
    """What is parsed can be trusted as far as names and counts go."""
    for part in (found, found.replaces and found.replaces.manifest):
        if part is None:
            continue
        names = [part.name, part.index.name, *(f.name for f in part.files)]
        assert all(n not in ("", ".", "..") and not {"/", "\\", "\0"} & set(n) for n in names)
        assert min([part.epoch, part.sequence, part.index.size, *(f.size for f in part.files)]) >= 0
        for entry in part.entries:
            assert all(0 <= p.file < len(part.files) for p in entry.pieces)
            assert all(p.offset >= 0 and p.size >= 0 for p in entry.pieces)
        if part.follows is not None:
            assert min(part.follows.crc32c, part.follows.index_crc32c or 0) >= 0
    assert manifests.parse(manifests.render(found)) == found
    assert found.order >= (0, 0)


UNSAFE = ["", ".", "..", "/etc/passwd", "a/b", "..\\b", "C:x", "a\0b", 7, None, ["a"]]


@pytest.mark.parametrize("name", UNSAFE, ids=repr)
@pytest.mark.parametrize(
    "path",
    [
        ("name",),
        ("index", "name"),
        ("files", 0, "name"),
        ("replaces", "index", "name"),
        ("replaces", "files", 0),
        ("replaces", "manifest", "files", 0, "name"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_name_that_leaves_the_directory_is_refused(path, name):
    body = json.loads(DATA)
    target = body
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = name
    with pytest.raises(ManifestError, match="not safe"):
        manifests.parse(json.dumps(body).encode())


@pytest.mark.parametrize("version", [0, 2, "1", None, 99, [1]])
def test_another_version_is_refused_with_advice(version):
    body = {**json.loads(DATA), "version": version}
    with pytest.raises(ManifestError, match=r"Use a newer distckpt, or .* plain TensorFlow"):
        manifests.parse(json.dumps(body).encode(), "here")


def test_a_replaced_version_cannot_itself_replace_one():
    twice = example_manifest(replaces=Replaced(SWITCH.index, (), SWITCH))
    with pytest.raises(ManifestError, match="cannot itself replace"):
        manifests.parse(manifests.render(twice))


@pytest.mark.parametrize("path", [("committed_at",), ("seconds",), ("workers", 0, "seconds")])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_not_a_number_is_refused(path, number):
    """A checkpoint's time goes into TensorFlow's file, which then nobody could read."""
    with pytest.raises(ManifestError, match=r"here is damaged .*not a number"):
        manifests.parse(replaced(path, number), "here")


@pytest.mark.parametrize("field", ["epoch", "sequence"])
def test_an_order_that_no_file_name_can_hold_is_refused(field):
    with pytest.raises(ManifestError, match=r"here is damaged .*too large"):
        manifests.parse(replaced((field,), 10**18), "here")


def test_a_name_that_no_checkpoint_can_have_is_refused():
    """TensorFlow's file cannot hold it, and nobody could write that any more."""
    body = json.loads(manifests.render(example_manifest(files=(), entries=())))
    body["name"] = "ckpt\udcff-12"
    body["index"]["name"] = "ckpt\udcff-12.index"
    with pytest.raises(ManifestError, match="not valid Unicode"):
        manifests.parse(json.dumps(body).encode(), "here")


def replaced(path, value):
    """Returns a manifest with another value at `path`."""
    body = json.loads(DATA)
    target = body
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return json.dumps(body).encode()


def test_a_manifest_that_does_not_say_what_it_follows_is_read():
    body = json.loads(manifests.render(example_manifest()))
    del body["follows"]
    assert manifests.parse(json.dumps(body).encode()) == example_manifest(follows=None)


# --- Meaning


def test_newer_means_epoch_and_then_order_of_commits():
    orders = [example_manifest(epoch=e, sequence=s).order for e, s in [(1, 9), (2, 1), (2, 10)]]
    assert orders == sorted(orders)


def test_bytes_are_those_of_all_files_but_the_manifest():
    assert example_manifest().bytes == 300 + 4096


def test_claims_are_the_data_files_of_both_versions():
    assert example_manifest().claims == {"ckpt-12.data-00000-of-00001"}
    assert SWITCH.claims == {"ckpt-12.data-00000-of-00001", "ckpt-12.data-00000-of-00002"}


def test_the_index_on_disk_tells_which_version_is_in_force():
    assert SWITCH.in_force(7) is SWITCH
    assert SWITCH.in_force(5) is OLD
    plain = example_manifest(replaces=Replaced(OLD.index, (), None))
    assert plain.in_force(5) is None
    with pytest.raises(ManifestError, match="not the index that the manifest of ckpt-12"):
        SWITCH.in_force(6)
    with pytest.raises(ManifestError):
        example_manifest().in_force(5)


def test_the_version_that_is_replaced_is_of_the_same_name():
    other = dataclasses.replace(
        OLD, name="ckpt-1", index=IndexRecord("ckpt-1.index", 1, 1), files=(), worker_states=()
    )
    both = example_manifest(replaces=Replaced(OLD.index, (), other))
    with pytest.raises(ManifestError, match="'ckpt-1' cannot be the version before 'ckpt-12'"):
        manifests.parse(manifests.render(both))


@pytest.mark.parametrize("file", ["ckpt-1.index", "ckpt-120.data-00000-of-00001", "checkpoint"])
def test_a_manifest_claims_files_of_its_own_checkpoint_only(file):
    for manifest in (
        example_manifest(files=(FileRecord(file, 1, 0),), entries=()),
        example_manifest(index=IndexRecord(file, 1, 1)),
        example_manifest(replaces=Replaced(OLD.index, (file,), None)),
    ):
        with pytest.raises(ManifestError, match="not one of the files of ckpt-12"):
            manifests.parse(manifests.render(manifest))


@pytest.mark.parametrize("file", ["ckpt-12.index", "ckpt-12.manifest.json"])
def test_index_and_manifest_are_no_data_files(file):
    """Data files may be removed while the checkpoint stays: those of an attempt that failed."""
    for manifest in (
        example_manifest(files=(FileRecord(file, 1, 0),), entries=()),
        example_manifest(replaces=Replaced(OLD.index, (file,), None)),
    ):
        with pytest.raises(ManifestError, match="not one of the data files of ckpt-12"):
            manifests.parse(manifests.render(manifest))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prefix": "ckpt-12"}, "not what only worker 0 has of ckpt-12"),
        ({"prefix": "ckpt-1.worker-00000-of-00001"}, "not what only worker 0 has of ckpt-12"),
        ({"prefix": "../ckpt-12.worker-00000-of-00001"}, "not what only worker 0 has of ckpt-12"),
        ({"prefix": "ckpt-12.worker-00000-of-00001.v1"}, "no index among the checkpoint's files"),
        ({"worker": 1}, "not what only worker 1 has of ckpt-12"),
        ({"crc32c": -1}, "damaged"),
        ({"prefix": None}, "damaged"),
    ],
)
def test_worker_states_are_small_checkpoints_among_the_files(changes, text):
    body = json.loads(manifests.render(OLD))
    body["worker_states"][0].update(changes)
    with pytest.raises(ManifestError, match=text):
        manifests.parse(json.dumps(body).encode())


def test_worker_states_are_those_of_all_workers():
    body = json.loads(manifests.render(OLD))
    body["worker_states"] *= 2
    with pytest.raises(ManifestError, match="not those of all workers"):
        manifests.parse(json.dumps(body).encode())


def test_the_index_of_a_checkpoint_has_one_name():
    manifest = example_manifest(index=IndexRecord("ckpt-12.data-00000-of-00001", 1, 1))
    with pytest.raises(ManifestError, match="not the index of ckpt-12"):
        manifests.parse(manifests.render(manifest))


TIMED = (Phase("hold", 1.7e9, 0.25), Phase("write", 1.7e9 + 0.25, 3.0))


def test_the_phases_of_a_worker_take_one_line():
    workers = (WorkerRecord(0, "a", 1, 4096, 0.2, TIMED), WorkerRecord(1, "b", 1, 4096, 0.2))
    data = manifests.render(example_manifest(workers=workers))
    assert b'\n[["hold",1700000000.0,0.25],["write",1700000000.25,3.0]],\n[]\n' in data
    assert manifests.parse(data).workers == workers


def test_a_manifest_without_phases_is_read():
    assert b"phases" not in manifests.render(example_manifest())
    assert manifests.parse(manifests.render(example_manifest())).workers[0].phases == ()


@pytest.mark.parametrize(
    "phases", [[], [[], []], [[["hold", 1.0]]], [[["hold", "x", 1.0]]], [1], 1, [[["a", 1e999, 1]]]]
)
def test_phases_that_make_no_sense_are_refused(phases):
    body = json.loads(manifests.render(example_manifest()))
    with pytest.raises(ManifestError, match="is damaged"):
        manifests.parse(json.dumps({**body, "phases": phases}).encode())


# --- Without the tensors


def without_entries(manifest):
    old = manifest.replaces
    if old is not None and old.manifest is not None:
        old = dataclasses.replace(old, manifest=without_entries(old.manifest))
    return dataclasses.replace(manifest, entries=(), replaces=old)


@given(manifest_values())
def test_without_its_tensors_it_says_all_else(manifest):
    data = manifests.render(manifest)
    assert manifests.parse(data, entries=False) == without_entries(manifest)


JUNK = (
    st.none()
    | st.integers(-3, 3)
    | st.text(max_size=2)
    | st.lists(st.integers(-1, 1))
    | st.just(0.5)
)


@given(st.integers(0, 3), st.integers(0, 5), JUNK)
def test_without_its_tensors_the_same_is_refused(column, number, junk):
    """A row of an entry, or of a piece in it, with something else in the place of one value."""
    body = json.loads(manifests.render(example_manifest()))
    row = next(row for row in body["entries"] if row[3])
    if number < len(row[3][0]) and column == 3:
        row[3][0][number] = junk
    else:
        row[column] = junk
    data = json.dumps(body).encode()
    said = []
    for entries in (True, False):
        try:
            manifests.parse(data, entries=entries)
            said.append("")
        except ManifestError as error:
            said.append(str(error))
    assert said[0] == said[1]
