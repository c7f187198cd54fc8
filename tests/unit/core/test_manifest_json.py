"""Manifests as files: what is written is what is read."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.core import manifest_json
from distckpt.core.manifest import WorkerRecord
from distckpt.core.protocol.phases import Phase
from distckpt.errors import ManifestError

from .manifests import DATA, example_manifest, manifest_values, with_checksum


@settings(max_examples=200, deadline=None)
@given(manifest_values())
def test_what_was_rendered_is_what_is_parsed(found):
    assert manifest_json.parse(manifest_json.render(found)) == found


def test_it_is_one_json_object_with_a_line_for_each_entry():
    found = example_manifest(entries=example_manifest().entries * 3)
    data = manifest_json.render(found)
    body = json.loads(data)
    assert body["format"] == "distckpt-manifest"
    assert body["version"] == 3
    assert len(body["entries"]) == 3
    assert data.count(b'\n["w",') == 3
    assert data.endswith(b"\n")


def test_an_empty_state_has_a_manifest_too():
    found = example_manifest(files=(), entries=(), workers=(), versions={})
    assert manifest_json.parse(manifest_json.render(found)) == found


@pytest.mark.parametrize("version", [0, 4, "2", None, 99, [1]])
def test_another_version_is_refused_with_advice(version):
    body = {**json.loads(DATA), "version": version}
    with pytest.raises(ManifestError, match=r"Use a newer distckpt, or .* plain TensorFlow"):
        manifest_json.parse(with_checksum(body), "here")


def test_a_manifest_that_does_not_say_what_it_follows_is_read():
    body = json.loads(manifest_json.render(example_manifest()))
    del body["follows"]
    assert manifest_json.parse(with_checksum(body)) == example_manifest(follows=None)


TIMED = (Phase("hold", 1.7e9, 0.25), Phase("write", 1.7e9 + 0.25, 3.0))


def test_the_phases_of_a_worker_take_one_line():
    workers = (WorkerRecord(0, "a", 1, 4096, 0.2, TIMED), WorkerRecord(1, "b", 1, 4096, 0.2))
    data = manifest_json.render(example_manifest(workers=workers))
    assert b'\n[["hold",1700000000.0,0.25],["write",1700000000.25,3.0]],\n[]\n' in data
    assert manifest_json.parse(data).workers == workers


def test_a_manifest_without_phases_is_read():
    assert b"phases" not in manifest_json.render(example_manifest())
    assert manifest_json.parse(manifest_json.render(example_manifest())).workers[0].phases == ()


@pytest.mark.parametrize(
    "phases", [[], [[], []], [[["hold", 1.0]]], [[["hold", "x", 1.0]]], [1], 1, [[["a", 1e999, 1]]]]
)
def test_phases_that_make_no_sense_are_refused(phases):
    body = json.loads(manifest_json.render(example_manifest()))
    with pytest.raises(ManifestError, match="is damaged"):
        manifest_json.parse(with_checksum({**body, "phases": phases}))


def without_entries(manifest):
    old = manifest.replaces
    if old is not None and old.manifest is not None:
        old = dataclasses.replace(old, manifest=without_entries(old.manifest))
    return dataclasses.replace(manifest, entries=(), replaces=old)


@given(manifest_values())
def test_without_its_tensors_it_says_all_else(manifest):
    data = manifest_json.render(manifest)
    assert manifest_json.parse(data, entries=False) == without_entries(manifest)


JUNK = (
    st.none()
    | st.integers(-3, 3)
    | st.text(max_size=2)
    | st.lists(st.integers(-1, 1))
    | st.just(0.5)
)


@given(st.integers(0, 3), st.integers(0, 5), JUNK)
def test_without_its_tensors_the_same_is_refused(column, number, junk):
    """One value in a row of an entry, or of a piece in it, is replaced."""
    body = json.loads(manifest_json.render(example_manifest()))
    row = next(row for row in body["entries"] if row[3])
    if number < len(row[3][0]) and column == 3:
        row[3][0][number] = junk
    else:
        row[column] = junk
    data = with_checksum(body)
    said = []
    for entries in (True, False):
        try:
            manifest_json.parse(data, entries=entries)
            said.append("")
        except ManifestError as error:
            said.append(str(error))
    assert said[0] == said[1]
