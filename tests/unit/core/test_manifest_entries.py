"""Many tensors in a manifest: compressed columns."""

from __future__ import annotations

import base64
import json
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.core import manifest_checksum, manifest_entries, manifest_json
from distckpt.core.manifest import EntryRecord, FileRecord, PieceRecord
from distckpt.errors import ManifestError

from .manifests import CRC, TEXT, example_manifest

COUNT = st.integers(0, 2**60)
PIECE = st.builds(PieceRecord, st.integers(0, 2), COUNT, COUNT, CRC, st.just("") | TEXT)
SHAPE = st.lists(COUNT, max_size=4).map(tuple)
ENTRY = st.builds(EntryRecord, TEXT, TEXT, SHAPE, st.lists(PIECE, max_size=3).map(tuple))


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRY, max_size=8).map(tuple))
def test_what_was_packed_is_what_is_unpacked(entries):
    assert manifest_entries.unpack(manifest_entries.pack(entries), 3) == entries


def many(count):
    """Returns the tensors of a deep network on four workers."""
    numbers = random.Random(1)
    ends, entries = [0] * 4, []
    for number in range(count):
        file, size = numbers.randrange(4), 4 * 64 * 64
        piece = PieceRecord(file, ends[file], size, numbers.getrandbits(32))
        ends[file] += size
        key = f"model/layer-{number}/kernel/.ATTRIBUTES/VARIABLE_VALUE"
        entries.append(EntryRecord(key, "float32", (64, 64), (piece,)))
    return tuple(entries)


def large_manifest(count=2000):
    names = [f"ckpt-12.data-{n:05d}-of-00004" for n in range(4)]
    files = tuple(FileRecord(name, 1 << 30, n) for n, name in enumerate(names))
    return example_manifest(files=files, entries=many(count))


def test_a_manifest_of_many_tensors_takes_few_bytes_for_each():
    """A million must take at most 20 MB."""
    found = large_manifest(20_000)
    data = manifest_json.render(found)
    assert len(data) < 15 * 20_000
    assert manifest_json.parse(data) == found
    assert manifest_json.parse(data, entries=False).entries == ()
    assert isinstance(json.loads(data)["entries"], str)


def test_few_tensors_are_rows_to_be_read_by_people():
    few = manifest_json.render(large_manifest(manifest_entries.MOST_ROWS))
    assert len(json.loads(few)["entries"]) == manifest_entries.MOST_ROWS


def test_keys_that_are_no_unicode_are_kept():
    entries = (*many(manifest_entries.MOST_ROWS), EntryRecord("\udcff", "float32", (), ()))
    found = example_manifest(files=large_manifest(1).files, entries=entries)
    assert manifest_json.parse(manifest_json.render(found)) == found


# --- The head -------------------------------------------------------------------------------------


def test_the_head_says_what_the_manifest_says():
    found = large_manifest()
    head = manifest_json.parse_head(manifest_json.render(found)[: manifest_json.HEAD_SIZE])
    for field in ("name", "step", "term", "sequence", "attempt", "committed_at", "seconds"):
        assert getattr(head, field) == getattr(found, field)
    for field in ("versions", "index", "follows", "metrics", "retention", "order", "commit"):
        assert getattr(head, field) == getattr(found, field)
    assert head.checksum_verified
    assert head.in_force(found.index.crc32c) is head
    with pytest.raises(ManifestError, match="is not the index that the manifest of ckpt-12"):
        head.in_force(0)


def test_a_head_that_was_changed_is_noticed():
    start = manifest_json.render(large_manifest())[: manifest_json.HEAD_SIZE]
    head = len(manifest_checksum.head_in(start, "here")) - 1
    for position in range(head):
        data = bytearray(start)
        data[position] ^= 1
        with pytest.raises(ManifestError, match="here was changed after it was written"):
            manifest_json.parse_head(bytes(data), "here")


def test_a_small_manifest_is_checked_to_its_end():
    data = manifest_json.render(example_manifest()).replace(b'"float32"', b'"float64"')
    with pytest.raises(ManifestError, match="here was changed"):
        manifest_json.parse_head(data, "here")


def test_a_long_head_is_read_from_the_whole():
    found = example_manifest(metrics={f"metric-{n}": 0.5 for n in range(1000)})
    assert manifest_json.parse_head(manifest_json.render(found)[: manifest_json.HEAD_SIZE]) is None


# --- Damaged columns ------------------------------------------------------------------------------


def packed(**changes):
    """Returns the columns of two tensors, with other values in some."""
    columns = {
        "keys": ["a", "b"],
        "kinds": [["float32", [2]], ["int64", []]],
        "kind": [0, 1],
        "specs": {},
        "files": [0, 1],
        "gaps": [0, 8],
        "sizes": [8, 8],
        "crc32cs": [1, 2],
    }
    text = json.dumps({**columns, **changes}).encode()
    return base64.b64encode(zlib.compress(text)).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": ["a"]},
        {"kind": [0]},
        {"kind": [0, 2]},
        {"kind": [0, -1]},
        {"kinds": [[1, []], ["int64", []]]},
        {"files": [0, 2]},
        {"files": [0, -1]},
        {"gaps": [-1, 0]},
        {"gaps": [0]},
        {"sizes": [8, -8]},
        {"sizes": [8, 8, 8], "files": [0, 1, 1], "gaps": [0, 0, 0], "crc32cs": [1, 2, 3]},
        {"specs": {"0": ["", ""]}},
        {"specs": {"x": [""]}},
        {"crc32cs": None},
    ],
    ids=str,
)
def test_columns_that_make_no_sense_are_refused(changes):
    assert len(manifest_entries.unpack(packed(), 2)) == 2
    with pytest.raises((ManifestError, ValueError, IndexError)):
        manifest_entries.unpack(packed(**changes), 2)


@pytest.mark.parametrize("text", ["", "x", "!!!!", base64.b64encode(b"no zlib").decode()])
def test_text_that_has_no_columns_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        manifest_entries.unpack(text, 2)


def test_columns_that_are_cut_off_are_refused():
    whole = base64.b64decode(packed())
    with pytest.raises(ValueError, match="cut off"):
        manifest_entries.unpack(base64.b64encode(whole[:-4]).decode(), 2)


def test_columns_that_would_fill_the_memory_are_refused():
    bomb = base64.b64encode(zlib.compress(b" " * (1 << 24), 9)).decode()
    with pytest.raises(ValueError, match="cut off"):
        manifest_entries.unpack(bomb, 2)
