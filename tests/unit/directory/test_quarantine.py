"""Notes on damaged checkpoints."""

from __future__ import annotations

import json
import time

import pytest
from google_crc32c import value as crc32c

from ..kit import lab
from .views import ALL, catalog, view


def note(run, name, index_crc32c, reason="bad sector"):
    folder = run / ".distckpt/quarantine"
    folder.mkdir(parents=True, exist_ok=True)
    data = {"name": name, "index_crc32c": index_crc32c, "reason": reason}
    (folder / f"{name}.json").write_text(json.dumps(data))


def test_a_checkpoint_with_a_note_is_neither_listed_nor_restored(run):
    note(run, "ckpt-3", crc32c((run / "ckpt-3.index").read_bytes()))
    assert catalog(run).quarantined() == {"ckpt-3": "bad sector"}
    assert view(run) == (["ckpt-1", "ckpt-2"], "ckpt-2")
    assert "ckpt-3" not in catalog(run).candidates(time.time())


def test_a_note_on_another_version_of_the_same_name_does_not_hold(run):
    note(run, "ckpt-3", 12345)
    assert catalog(run).quarantined() == {}
    assert view(run) == (ALL, "ckpt-3")


def test_a_note_on_a_missing_index_holds_until_there_is_one(run):
    note(run, "ckpt-4", None)
    assert catalog(run).quarantined() == {"ckpt-4": "bad sector"}
    lab.Chief(run, max_to_keep=9).save("ckpt-4", 4)
    assert catalog(run).quarantined() == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', "\x00"])
def test_what_is_no_note_is_ignored(run, text):
    note(run, "ckpt-3", None)
    (run / ".distckpt/quarantine/ckpt-3.json").write_text(text)
    assert catalog(run).quarantined() == {}


def test_a_note_that_points_elsewhere_is_ignored(run):
    """Reading, too, must stay within the directory."""
    note(run, "ckpt-3", None)
    path = run / ".distckpt/quarantine/ckpt-3.json"
    path.write_text(json.dumps({"name": 7, "index_crc32c": None, "reason": ""}))
    assert catalog(run).quarantined() == {}
