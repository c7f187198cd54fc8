"""An inventory of a directory costs one listing, and one reading of each file."""

from __future__ import annotations

import collections
import os
import time

import pytest

from distckpt.inspection import inventory

from ..kit import lab


class CountingStorage(lab.FastStorage):
    """Counts the requests for each path."""

    def __init__(self):
        self.count = collections.Counter()

    def list(self, path):
        self.count[path] += 1
        return super().list(path)

    def read(self, path, *arguments):
        self.count[path] += 1
        return super().read(path, *arguments)

    def size(self, path):
        self.count[path] += 1
        return super().size(path)


@pytest.mark.parametrize("saves", [1, 5])
def test_nothing_is_asked_for_twice(tmp_path, saves):
    chief = lab.Chief(tmp_path / "run", max_to_keep=9)
    for number in range(1, saves + 1):
        chief.save(f"ckpt-{number}", number, 2)
    storage = CountingStorage()
    found = inventory.take(storage, chief.directory, time.time())
    assert [item.name for item in found.items] == [f"ckpt-{n}" for n in range(1, saves + 1)]
    assert found.items[-1].newest
    asked = {
        path: count
        for path, count in storage.count.items()
        if os.path.dirname(path) == chief.directory or path == chief.directory
    }
    assert set(asked.values()) == {1}
    assert len(asked) == 2 + 4 * saves  # itself, `checkpoint`; manifest, index and two data files
