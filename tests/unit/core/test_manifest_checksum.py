"""The checksum of a manifest notices every change."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.core import manifest_json
from distckpt.errors import ManifestError

from .manifests import DATA, OLD, SWITCH, manifest_values


@settings(max_examples=400, deadline=None)
@given(st.just(SWITCH) | manifest_values(), st.data())
def test_a_byte_that_has_changed_is_noticed(found, data):
    file = bytearray(manifest_json.render(found))
    file[data.draw(st.integers(0, len(file) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for entries in (True, False):
        with pytest.raises(ManifestError, match=r"^here "):
            manifest_json.parse(bytes(file), "here", entries=entries)


@pytest.mark.parametrize(
    "change",
    [
        (b'"step": 1200', b'"step": 1201'),
        (b'"float32"', b'"float64"'),
        (b'"version": 3', b'"version": 1'),
        (b' "name"', b'  "name"'),
    ],
)
def test_a_manifest_that_was_edited_is_told_by_its_checksum(change):
    data = DATA.replace(*change)
    assert data != DATA
    text = r"here was changed after it was written: its checksum is \w{16}…, its content's is \w+…"
    with pytest.raises(ManifestError, match=text):
        manifest_json.parse(data, "here")


def test_a_checksum_that_is_gone_or_was_moved_is_noticed():
    body = json.loads(DATA)
    checksum = body.pop("checksum")
    for edited in (body, {"checksum": checksum, **body}, {**body, "checksum": checksum}):
        with pytest.raises(ManifestError, match=r"here was changed .* is not in its place"):
            manifest_json.parse(json.dumps(edited).encode(), "here")


def test_a_manifest_of_the_version_before_is_read_but_not_verified():
    body = {**json.loads(DATA), "version": 1}
    with pytest.raises(ManifestError, match="was changed"):
        manifest_json.parse(json.dumps(body).encode(), "here")
    del body["checksum"]
    found = manifest_json.parse(json.dumps(body).encode())
    assert (found, found.checksum_verified) == (SWITCH, False)


def test_what_was_verified_is_told_also_of_the_version_that_is_replaced():
    found = manifest_json.parse(DATA)
    assert found.checksum_verified
    assert found.in_force(OLD.index.crc32c).checksum_verified


def test_the_checksum_can_be_computed_without_distckpt(tmp_path):
    path = tmp_path / "ckpt-12.manifest.json"
    path.write_bytes(DATA)
    command = f"head -n -2 {path} | head -c -2 | sha256sum"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(DATA)["checksum"] == "sha256:" + done.stdout.split()[0]
