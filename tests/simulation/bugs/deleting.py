"""Bugs in deletion and in recovery from dead attempts."""

from __future__ import annotations

import dataclasses

from distckpt.core import layout, pins_and_leases, tf_retention
from distckpt.directory import pinning, pruner
from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.errors import ConfigurationError

from .registry import Change, bug, nothing


@bug()
def tombstone_after_the_data() -> list[Change]:
    """The files of a checkpoint are deleted before its manifest."""
    original = pruner.Pruner._bury

    def bury(self, name, folder):
        files = pruner.CheckpointFiles(
            self._storage, self._directory, name, self._ownership, folder, durable=self._durable
        )
        for file in files.data():
            files._remove(file)
        return original(self, name, folder)

    return [(pruner.Pruner, "_bury", bury)]


@bug(pins=True, max_to_keep=1, names=0)
def a_pin_is_looked_for_only_before() -> list[Change]:
    """A deletion does not check whether the checkpoint was pinned after the deletion began."""
    return [(AttemptCleanup, "_put_back", lambda *args: False)]


@bug(pins=True, max_to_keep=1, names=0)
def a_pin_is_granted_without_a_second_look() -> list[Change]:
    """After pinning, nothing checks whether the checkpoint still exists."""
    original = pinning._state

    def place(storage, directory, hold, path):
        if original(storage, directory, hold.name) is None:
            raise ConfigurationError("there is none")
        storage.make_directory(layout.holds_folder(directory))
        storage.write(path, pins_and_leases.render(hold), durable=True)

    return [(pinning, "_place", place)]


@bug(max_to_keep=1, lag=0.0, kinds=["restore_backup"])
def a_deletion_does_not_look_for_the_commit_before_it() -> list[Change]:
    """A backup of the same term that is restored in between loses its checkpoints."""
    return [(pruner.Pruner, "_check_commit", nothing)]


@bug()
def retention_keeps_the_oldest() -> list[Change]:
    """The newest checkpoints are deleted."""

    def keep_newest(count):
        def rule(so_far):
            return dataclasses.replace(
                so_far, active=so_far.active[:count], victims=so_far.active[count:]
            )

        return rule

    return [(tf_retention, "keep_newest", keep_newest)]


@bug()
def recovery_takes_a_committed_one_back() -> list[Change]:
    """A chief that died after the commit is treated like one that died before it."""

    def complete(self, current, files, folder):
        files.remove_manifest("back.json")
        self._take_back(current, None, files)

    return [(AttemptCleanup, "_complete", complete)]


@bug()
def temporary_files_stay() -> list[Change]:
    """The files that a dead chief was writing are never deleted."""
    return [(AttemptCleanup, "remove_temporaries", nothing)]
