"""Bugs in writing and committing."""

from __future__ import annotations

from distckpt.core import layout, listings
from distckpt.core.manifest import Manifest
from distckpt.directory.checkpoint_files import CheckpointFiles
from distckpt.saving.committer import Committer
from distckpt.saving.shard_merger import ShardMerger
from distckpt.saving.shard_writer import ShardWriter

from ..storage import SimulatedStorage
from .registry import Change, bug, nothing


@bug(durable=True, kinds=["power"])
def directory_is_not_flushed() -> list[Change]:
    """The commit's renames are left to the operating system."""
    return [(Committer, "_flush", nothing)]


@bug()
def parents_are_not_flushed() -> list[Change]:
    """The directory itself may be lost."""
    return [(layout, "ancestors", lambda directory: [])]


@bug()
def shards_are_not_flushed() -> list[Change]:
    """Workers report files that are only in the memory of their machine."""
    original = ShardWriter.write

    def write(self, *args, **kwargs):
        self._durable = False
        return original(self, *args, **kwargs)

    return [(ShardWriter, "write", write)]


@bug()
def manifest_before_index() -> list[Change]:
    """The commit comes before what it commits."""
    move, publish = Committer._move, Committer._publish
    late: dict[int, tuple[str, str]] = {}

    def move_late(self, folder, name, target=None):
        if name.endswith(".index"):
            late[id(self)] = (folder, name)
        else:
            move(self, folder, name, target)

    def publish_first(self, manifest, folder):
        publish(self, manifest, folder)
        move(self, *late.pop(id(self)))

    return [(Committer, "_move", move_late), (Committer, "_publish", publish_first)]


@bug()
def data_before_prepared_manifest() -> list[Change]:
    """Files are in the directory before a manifest says which checkpoint they belong to."""
    original = Committer._prepare

    def prepare(self, manifest, reports, folder):
        write = self._storage.write
        held: list[tuple] = []
        self._storage.write = lambda *args, **kwargs: held.append((args, kwargs))
        try:
            original(self, manifest, reports, folder)
        finally:
            del self._storage.write
        for args, kwargs in held:
            write(*args, **kwargs)

    return [(Committer, "_prepare", prepare)]


@bug()
def data_files_keep_their_names() -> list[Change]:
    """A checkpoint that is saved again overwrites the files of the version in force."""
    return [(ShardMerger, "renumber", nothing)]


@bug()
def worker_states_keep_their_names() -> list[Change]:
    """The files of the version that is being replaced are replaced before the commit."""
    return [(listings, "parse_worker_file", lambda file: None)]


@bug()
def worker_states_are_not_flushed() -> list[Change]:
    """A power failure may delete the state that only one worker has."""
    original = SimulatedStorage.flush

    def flush(storage: SimulatedStorage, path: str) -> None:
        if ".own." not in path:
            original(storage, path)

    return [(SimulatedStorage, "flush", flush)]


@bug()
def worker_states_stay_when_all_else_goes() -> list[Change]:
    """No manifest claims the files of worker states, so nothing deletes them."""

    def claims(manifest: Manifest) -> frozenset[str]:
        old = manifest.replaces.files if manifest.replaces else ()
        names = frozenset(file.name for file in manifest.files) | frozenset(old)
        return frozenset(name for name in names if not listings.parse_worker_file(name))

    return [(Manifest, "claims", property(claims)), (CheckpointFiles, "all", CheckpointFiles.data)]


@bug()
def version_is_replaced_without_a_switch() -> list[Change]:
    """A checkpoint of the same name is replaced as if it did not exist."""
    return [(Committer, "_replaced", nothing)]
