from __future__ import annotations

import json

import pytest

from distckpt.core import layout, listings, rollback_record
from distckpt.core.rollback_record import Leaving, Rollback
from distckpt.errors import DirectoryError

FOLDER = layout.set_aside_name("20231114-221320", 7)
BACK = Rollback(
    "ckpt-7", FOLDER, (Leaving("ckpt-9", 5), Leaving("ckpt-8", None)), 11, "now\n", "before\n"
)


def test_what_was_rendered_is_what_is_parsed():
    assert rollback_record.parse(rollback_record.render(BACK), "here") == BACK
    assert BACK.names == ("ckpt-9", "ckpt-8")


@pytest.mark.parametrize(
    "change",
    [
        {"to": "../ckpt-7"},
        {"to": "ckpt-8"},
        {"to": None},
        {"folder": "../set-aside-20261129-110120-7"},
        {"folder": ".."},
        {"folder": "ckpt-1.index"},
        {"folder": 7},
        {"leaving": [{"name": "a/b", "index_crc32c": 1}]},
        {"leaving": [{"name": "ckpt-9", "index_crc32c": -1}]},
        {"leaving": [{"name": "ckpt-9"}]},
        {"leaving": 7},
        {"found": "5"},
        {"pointer": None},
        {"before": "\ud800"},
    ],
)
def test_what_no_rollback_writes_is_refused(change):
    body = {**json.loads(rollback_record.render(BACK)), **change}
    with pytest.raises(DirectoryError, match=r"here is damaged .* then remove the file"):
        rollback_record.parse(json.dumps(body).encode(), "here")


def test_tensorflows_file_counts_as_written_unless_somebody_has_written_it_since():
    found = b"it was so"
    back = Rollback("ckpt-7", FOLDER, (), rollback_record.crc32c_of(found), "now\n", "")
    assert back.pointer_after(found) == b"now\n"
    assert back.pointer_after(b"now\n") == b"now\n"
    assert back.pointer_after(b"another") == b"another"
    without = Rollback("ckpt-7", FOLDER, (), rollback_record.crc32c_of(b""), "now\n", "")
    assert without.pointer_after(b"") == b"now\n"


def test_the_folder_tells_when_and_by_whom():
    assert FOLDER == "set-aside-20231114-221320-7"
    assert layout.is_set_aside_name(FOLDER)
    assert not layout.is_set_aside_name(FOLDER + "/..")
    assert listings.classify([FOLDER]).others == (FOLDER,)
