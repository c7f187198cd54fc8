"""Owners of a directory, their terms, and checkpoints of other jobs."""

from __future__ import annotations

import dataclasses
import os

from distckpt.core import manifest_json
from distckpt.ownership.fencing import Ownership
from distckpt.storage.local import LocalStorage

from ..kit import lab


def owner(directory, storage=None):
    return Ownership(storage or LocalStorage(), str(directory), durable=True)


def terms(directory):
    return sorted(os.listdir(os.path.join(directory, ".distckpt", "terms")))


def plant(directory, name, term):
    """Puts a checkpoint into `directory` that another job has committed in `term`."""
    source = directory.parent / f"source-{name}-{term}"
    chief = lab.Chief(source)
    chief.save(name, 9)
    for path in source.glob("ckpt-*"):
        data = path.read_bytes()
        if path.suffix == ".json":
            manifest = manifest_json.parse(data)
            attempt = f"{term:08d}{manifest.attempt[8:]}"
            data = manifest_json.render(dataclasses.replace(manifest, term=term, attempt=attempt))
        (directory / path.name).write_bytes(data)


def taken(directory):
    """Returns the term that a new process takes."""
    process = owner(directory)
    process.take()
    return process.term
