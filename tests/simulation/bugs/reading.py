"""Bugs in listing and restoring."""

from __future__ import annotations

import dataclasses

from distckpt.directory import catalog
from distckpt.restoring.restore_session import RestoreSession
from distckpt.storage import retrying_reader

from .registry import Change, bug, nothing


@bug(jobs=2, kinds=["fail_once"])
def an_error_of_the_storage_counts_as_damage() -> list[Change]:
    """One failed read makes all workers take an older checkpoint."""
    return [(retrying_reader, "PATIENCE", 0.0)]


@bug(names=2, jobs=3, max_to_keep=2, lag=0.0, kinds=["second_job"])
def a_changing_checkpoint_counts_as_damaged() -> list[Change]:
    """If another job saves a checkpoint again during its verification, all take an older one."""
    return [(RestoreSession, "_crc", nothing)]


@bug(strict=True, kinds=["crash", "pause", "machine"])
def the_first_checkpoint_is_forgotten() -> list[Change]:
    """Without TensorFlow's file, checkpoints older than the reader count as not managed."""
    original = catalog.Catalog.view

    def view(self, now):
        seen = original(self, now)
        if self._state(self._pointer_data()) is None:
            return dataclasses.replace(seen, last_preserved=now - 1.0)
        return seen

    return [(catalog.Catalog, "view", view)]
