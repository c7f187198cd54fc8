"""Manifests that are damaged, though the checksum may be right, are refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from distckpt.core import manifest_checksum, manifest_json
from distckpt.errors import ManifestError

from .manifests import DATA, part_at, replaced, with_checksum


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"null")
@example(b"[]")
@example(b"{}")
@example(b"[" * 100_000)
@example(b'{"format": "distckpt-manifest", "version": 1}')
@example(b'{"format": "distckpt-manifest", "version": 2}')
@example(b'{"format": "distckpt-manifest", "version": 1e999}')
@example(b',\n "checksum": "sha256:%b"\n}\n' % (b"0" * 64))
@example(manifest_checksum.add(b"{}"))
@example(manifest_checksum.add(b"[1"))
def test_anything_else_is_refused(data):
    with pytest.raises(ManifestError):
        manifest_json.parse(data, "here")


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


PATHS = [path for path in paths(json.loads(DATA)) if path and path != ("checksum",)]


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(PATHS), JSON)
@example(("files", 0, "name"), "../evil")
@example(("committed_at",), float("nan"))
@example(("step",), True)
@example(("entries", 0, 3, 0, 0), 10**30)
def test_any_part_may_be_replaced_by_anything(path, value):
    check_parsed_or_refused(replaced(path, value))


@given(st.sampled_from([path for path in PATHS if isinstance(path[-1], str)]))
def test_no_part_may_be_missing(path):
    assume(path[0] != "replaces" or len(path) > 1)
    assume(path[-1] not in ("tensorflow", "replaces", "follows", "worker_states"))
    assume(path[0] != "replaces" or path[-1] not in ("format", "version"))
    body = json.loads(DATA)
    del part_at(body, path[:-1])[path[-1]]
    with pytest.raises(ManifestError):
        manifest_json.parse(with_checksum(body))


def check_parsed_or_refused(data):
    """`parse` raises nothing but `ManifestError`, and that says where."""
    refusal = None
    try:
        found = manifest_json.parse(data, "here")
    except ManifestError as error:
        refusal = str(error)
    if refusal is None:
        check_sound(found)
    else:
        assert refusal.startswith("here")


def check_sound(found):
    """Names and counts in what is parsed must be safe to use."""
    for part in (found, found.replaces and found.replaces.manifest):
        if part is None:
            continue
        names = [part.name, part.index.name, *(f.name for f in part.files)]
        assert all(n not in ("", ".", "..") and not {"/", "\\", "\0"} & set(n) for n in names)
        assert min([part.term, part.sequence, part.index.size, *(f.size for f in part.files)]) >= 0
        for entry in part.entries:
            assert all(0 <= p.file < len(part.files) for p in entry.pieces)
            assert all(p.offset >= 0 and p.size >= 0 for p in entry.pieces)
        if part.follows is not None:
            assert min(part.follows.crc32c, part.follows.index_crc32c or 0) >= 0
    assert manifest_json.parse(manifest_json.render(found)) == found
    assert found.order >= (0, 0)


@pytest.mark.parametrize("path", [("committed_at",), ("seconds",), ("workers", 0, "seconds")])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_not_a_number_is_refused(path, number):
    """A checkpoint's time goes into TensorFlow's file, which would then be unreadable."""
    with pytest.raises(ManifestError, match=r"here is damaged .*not a number"):
        manifest_json.parse(replaced(path, number), "here")


@pytest.mark.parametrize("field", ["term", "sequence"])
def test_an_order_that_no_file_name_can_hold_is_refused(field):
    with pytest.raises(ManifestError, match=r"here is damaged .*too large"):
        manifest_json.parse(replaced((field,), 10**18), "here")
