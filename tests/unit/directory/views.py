"""What a catalog shows of a directory."""

from __future__ import annotations

import time

from distckpt.directory.catalog import Catalog
from distckpt.storage.local import LocalStorage


def catalog(directory):
    return Catalog(LocalStorage(), str(directory))


def view(directory):
    """Returns (names, latest)."""
    found = catalog(directory).view(time.time())
    return [k.name for k in found.active], found.latest


ALL = ["ckpt-1", "ckpt-2", "ckpt-3"]
