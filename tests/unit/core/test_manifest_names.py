"""Names in a manifest are safe, and are those of its own checkpoint."""

from __future__ import annotations

import dataclasses
import json

import pytest

from distckpt.core import manifest_json
from distckpt.core.manifest import FileRecord, IndexRecord, Replaced
from distckpt.errors import ManifestError

from .manifests import OLD, SWITCH, example_manifest, replaced, with_checksum

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
    with pytest.raises(ManifestError, match="not safe"):
        manifest_json.parse(replaced(path, name))


def test_a_replaced_version_cannot_itself_replace_one():
    twice = example_manifest(replaces=Replaced(SWITCH.index, (), SWITCH))
    with pytest.raises(ManifestError, match="cannot itself replace"):
        manifest_json.parse(manifest_json.render(twice))


def test_a_name_that_no_checkpoint_can_have_is_refused():
    """TensorFlow's file cannot hold the name, so it could no longer be written."""
    body = json.loads(manifest_json.render(example_manifest(files=(), entries=())))
    body["name"] = "ckpt\udcff-12"
    body["index"]["name"] = "ckpt\udcff-12.index"
    with pytest.raises(ManifestError, match="not valid Unicode"):
        manifest_json.parse(with_checksum(body), "here")


def test_the_version_that_is_replaced_is_of_the_same_name():
    other = dataclasses.replace(
        OLD, name="ckpt-1", index=IndexRecord("ckpt-1.index", 1, 1), files=(), worker_states=()
    )
    both = example_manifest(replaces=Replaced(OLD.index, (), other))
    with pytest.raises(ManifestError, match="'ckpt-1' cannot be the version before 'ckpt-12'"):
        manifest_json.parse(manifest_json.render(both))


@pytest.mark.parametrize("file", ["ckpt-1.index", "ckpt-120.data-00000-of-00001", "checkpoint"])
def test_a_manifest_claims_files_of_its_own_checkpoint_only(file):
    for manifest in (
        example_manifest(files=(FileRecord(file, 1, 0),), entries=()),
        example_manifest(index=IndexRecord(file, 1, 1)),
        example_manifest(replaces=Replaced(OLD.index, (file,), None)),
    ):
        with pytest.raises(ManifestError, match="not one of the files of ckpt-12"):
            manifest_json.parse(manifest_json.render(manifest))


@pytest.mark.parametrize("file", ["ckpt-12.index", "ckpt-12.manifest.json"])
def test_index_and_manifest_are_no_data_files(file):
    """Data files of a failed attempt may be deleted while the checkpoint is kept."""
    for manifest in (
        example_manifest(files=(FileRecord(file, 1, 0),), entries=()),
        example_manifest(replaces=Replaced(OLD.index, (file,), None)),
    ):
        with pytest.raises(ManifestError, match="not one of the data files of ckpt-12"):
            manifest_json.parse(manifest_json.render(manifest))


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
    body = json.loads(manifest_json.render(OLD))
    body["worker_states"][0].update(changes)
    with pytest.raises(ManifestError, match=text):
        manifest_json.parse(with_checksum(body))


def test_worker_states_are_those_of_all_workers():
    body = json.loads(manifest_json.render(OLD))
    body["worker_states"] *= 2
    with pytest.raises(ManifestError, match="not those of all workers"):
        manifest_json.parse(with_checksum(body))


def test_the_index_of_a_checkpoint_has_one_name():
    manifest = example_manifest(index=IndexRecord("ckpt-12.data-00000-of-00001", 1, 1))
    with pytest.raises(ManifestError, match="not the index of ckpt-12"):
        manifest_json.parse(manifest_json.render(manifest))
