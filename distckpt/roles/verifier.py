"""Checks a checkpoint's files against its manifest, or its index if it has none. A reader."""

from __future__ import annotations

from collections.abc import Sequence

from distckpt.core import bundle, layout
from distckpt.core.bundle import BundleEntry
from distckpt.core.checksum import verify_entry
from distckpt.errors import CheckpointDamagedError
from distckpt.roles.catalog import Catalog
from distckpt.storage.base import Storage


class Verifier:
    """Verifies checkpoints of one directory. Any process."""

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._catalog = Catalog(storage, directory)

    def verify(self, name: str, worker: int = 0, workers: int = 1, *, data: bool = True) -> None:
        """Checks one worker's share of checkpoint `name`.

        The manifest, the index and the sizes of all files are checked by everyone.

        Args:
          name: The checkpoint.
          worker: Whose share: this one of
          workers: so many.
          data: Whether the bytes of the data files are read, too.

        Raises:
          CheckpointDamagedError: Something is missing or differs; the text says what and where.
        """
        try:
            manifest = self._catalog.manifest(name)
            path = layout.join(self._directory, layout.index_name(name))
            index = bundle.read_index(self._storage.read(path))
            if manifest is not None:
                for file in manifest.files:
                    self._check_size(file.name, file.size)
            mine = share(index.stored, worker, workers) if data else []
            for entry in mine:
                self._check_bytes(name, entry, index.num_shards)
        except OSError as error:
            raise CheckpointDamagedError(
                f"{name} in {self._directory} cannot be read: {error}"
            ) from error

    def _check_size(self, name: str, size: int) -> None:
        path = layout.join(self._directory, name)
        found = self._storage.size(path)
        if found != size:
            raise CheckpointDamagedError(f"{path} has {found} bytes instead of {size}.")

    def _check_bytes(self, name: str, entry: BundleEntry, shards: int) -> None:
        path = layout.join(self._directory, layout.data_name(name, entry.shard, shards))
        try:
            verify_entry(entry, lambda offset, size: self._storage.read(path, offset, size))
        except CheckpointDamagedError as error:
            raise CheckpointDamagedError(f"{path}: {error}") from error


def share(entries: Sequence[BundleEntry], worker: int, workers: int) -> list[BundleEntry]:
    """Returns the entries that `worker` checks: every entry is checked by one, bytes balanced."""
    loads = [0] * workers
    mine = []
    for entry in sorted(entries, key=lambda e: (-e.size, e.key, e.spec)):
        lightest = loads.index(min(loads))
        loads[lightest] += entry.size + 1
        if lightest == worker:
            mine.append(entry)
    return mine
