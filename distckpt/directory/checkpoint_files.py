"""Lists and removes the files of one checkpoint in a directory.

Used by the committer, by `AttemptCleanup` and by the pruner; only the last two remove anything.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Sequence

import google_crc32c

from distckpt.core import layout, listings, manifest_json
from distckpt.core.manifest import Head, IndexRecord, Manifest
from distckpt.core.tensorflow_format import index_reader
from distckpt.errors import CheckpointDamagedError, ManifestError, SupersededError
from distckpt.ownership.fencing import Ownership
from distckpt.runtime.gc_pause import paused
from distckpt.runtime.run_parallel import run_all
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import Reader

_log = logging.getLogger("distckpt")


class CheckpointFiles:
    """The files of checkpoint `name` in `directory`. Only for the chief while it holds the term.

    Args:
      storage: Where the directory is.
      directory: Its path.
      name: The checkpoint's name.
      ownership: This process's ownership of the directory.
      folder: The path of a pending folder of this process. Removed files are moved there, and
        deleted with the folder. A successor moves that folder away, so even a paused process cannot
        remove a file that the successor has written under the same name.
      durable: Whether removals and renames are forced to stable storage.
      threads: How many data files are removed at the same time.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        name: str,
        ownership: Ownership,
        folder: str,
        *,
        durable: bool,
        threads: int = 1,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._name = name
        self._ownership = ownership
        self._folder = folder
        self._durable = durable
        self._threads = threads

    def manifest(self, *, entries: bool = True) -> Manifest | None:
        """Returns the current manifest file, without its tensors if not `entries`; or None.

        Raises:
          ManifestError: It is damaged, or of another checkpoint.
          OSError: It cannot be read.
        """
        return read_manifest(self._storage, self._directory, self._name, entries=entries)

    def index(self) -> IndexRecord | None:
        """Returns the record of the index file on disk, or None if there is none."""
        return read_index_record(self._storage, self._directory, layout.index_name(self._name))

    def data(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """Returns the names of all data files, those of interrupted saves included; see `all`."""
        found = self._listed(names)
        return found.data if found else ()

    def all(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """Returns the names of all data files, and of the files of the workers' own checkpoints.

        Args:
          names: A listing of the directory; without it, the directory is listed.
        """
        found = self._listed(names)
        return (*found.data, *found.workers) if found else ()

    def remove_manifest(self, into: str) -> None:
        """Moves the manifest into the folder, as `into`: the checkpoint is no longer committed."""
        self._move(layout.manifest_name(self._name), into)

    def remove_index(self) -> None:
        """Removes the index: the checkpoint no longer exists."""
        self._remove(layout.index_name(self._name))

    def remove_data(
        self,
        keep: frozenset[str],
        also: frozenset[str] = frozenset(),
        names: Sequence[str] | None = None,
    ) -> None:
        """Removes all files, and those of `also`, except `keep` and the files that the index names.

        The index may be that of a later save by plain TensorFlow under this name. `names` as for
        `all`.
        """
        doomed = (frozenset(self.all(names)) | also) - keep
        if doomed:
            doomed -= self._indexed(doomed)
        run_all([functools.partial(self._remove, name) for name in sorted(doomed)], self._threads)

    def flush(self) -> None:
        """Makes removals and renames durable, if requested."""
        if self._durable:
            self._storage.flush_directory(self._directory)

    def _listed(self, names: Sequence[str] | None) -> listings.CheckpointFiles | None:
        if names is None:
            names = self._storage.list(self._directory)
        mine = [name for name in names if name.startswith(self._name)]
        return listings.classify(mine).checkpoints.get(self._name)

    def _indexed(self, files: frozenset[str]) -> frozenset[str]:
        """Returns those of `files` that the index on disk names; all if the index is unreadable."""
        path = layout.join(self._directory, layout.index_name(self._name))
        try:
            shards = index_reader.read_index(self._storage.read(path)).num_shards
        except FileNotFoundError:
            return frozenset()
        except CheckpointDamagedError as error:
            _log.warning("%s; data files that it may name are left as they are: %s", path, error)
            return files
        return files & {layout.data_name(self._name, shard, shards) for shard in range(shards)}

    def _remove(self, name: str) -> None:
        path = layout.join(self._directory, name)
        if not self._storage.exists(path):
            return
        try:
            self._move(name, name)
        except FileNotFoundError:
            if self._storage.exists(path):
                raise  # so the folder is missing

    def _move(self, name: str, into: str) -> None:
        self._ownership.check()  # a replaced chief must not delete what its successor has written
        path, target = layout.join(self._directory, name), layout.join(self._folder, into)
        try:
            self._storage.rename(path, target)
        except OSError:
            self._ownership.check_cause()
            raise
        if not self._storage.has_folders:
            self._check_moved(path, target)

    def _check_moved(self, path: str, target: str) -> None:
        """Puts a moved file back if the folder was gone: the file may be the successor's."""
        try:
            self._ownership.check()
        except SupersededError:
            if not self._storage.exists(path):
                with contextlib.suppress(FileNotFoundError):
                    self._storage.rename(target, path)
            raise


def read_manifest(
    storage: Reader, directory: str, name: str, *, entries: bool = True
) -> Manifest | None:
    """Returns the current manifest file of checkpoint `name`, None if absent.

    Without `entries` the tensors are left out.

    Raises:
      ManifestError: It is damaged, or of another checkpoint, whose files must not be deleted.
      OSError: It cannot be read.
    """
    path = layout.join(directory, layout.manifest_name(name))
    try:
        data = storage.read(path)
    except FileNotFoundError:
        return None
    with paused():
        manifest = manifest_json.parse(data, path, entries=entries)
    _check_name(manifest, name, path)
    return manifest


def read_head(storage: Reader, directory: str, name: str) -> Head | None:
    """Returns the head of the manifest of checkpoint `name`, None if absent.

    It takes the same time however many tensors the checkpoint has. Raises as `read_manifest`; but
    damage of the rest of the manifest is noticed only if the manifest is small.
    """
    path = layout.join(directory, layout.manifest_name(name))
    try:
        data = storage.read(path, 0, manifest_json.HEAD_SIZE)
    except FileNotFoundError:
        return None
    head = manifest_json.parse_head(data, path)
    if head is None:
        return read_manifest(storage, directory, name, entries=False)
    _check_name(head, name, path)
    return head


def _check_name(manifest: Head, name: str, path: str) -> None:
    if manifest.name != name:
        raise ManifestError(
            f"{path} is the manifest of {manifest.name!r}; somebody copied or renamed it. "
            f"If you remove it, {name!r} is a plain TensorFlow checkpoint."
        )


def is_whole_index(storage: Reader, directory: str, name: str) -> bool:
    """Returns whether the index of checkpoint `name` exists and is intact."""
    try:
        index_reader.read_index(storage.read(layout.join(directory, layout.index_name(name))))
    except (OSError, CheckpointDamagedError):
        return False
    return True


def read_index_record(storage: Reader, folder: str, name: str) -> IndexRecord | None:
    """Returns the size and the checksum of the index file `name` of `folder`, None if absent."""
    try:
        data = storage.read(layout.join(folder, name))
    except FileNotFoundError:
        return None
    return IndexRecord(name, len(data), int(google_crc32c.value(data)))
