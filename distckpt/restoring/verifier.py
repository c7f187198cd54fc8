"""Checks a checkpoint's files against its manifest, or its index if it has none. Only reads.

A few threads read and check bytes: both operations release the interpreter's lock, for pieces of at
least 1 MiB (google-crc32c from 1.9 on). Small neighbouring entries are read together.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import google_crc32c

from distckpt.core import layout
from distckpt.core.manifest import Manifest, StateRecord
from distckpt.core.tensorflow_format import index_reader
from distckpt.core.tensorflow_format.index_reader import BundleEntry
from distckpt.core.tensorflow_format.tensor_checksum import Read, verify_entry
from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError, explain
from distckpt.messaging.progress import Progressing
from distckpt.runtime.run_parallel import run_all
from distckpt.storage.retrying_reader import Reader

# Bytes read at once; each thread holds at most two such pieces. Smaller pieces would not release
# the interpreter's lock, larger ones exceed a processor's cache: 1 to 4 MiB are the fastest.
CHUNK = 2 << 20
# Entries up to this size are read together with their neighbours, which costs a copy.
SMALL = 256 << 10
# The largest gap between two such neighbours; bytes in it may belong to another worker's share.
GAP = 64 << 10
# More threads are not faster, whether files are in memory or on a disk.
MOST_THREADS = 4


class Verifier:
    """Verifies checkpoints of one directory. Any process.

    Args:
      storage: The directory's storage; several threads read at the same time.
      directory: The directory's absolute path or URL.
      threads: How many threads read and check. Default: one for each CPU, at most 4.
    """

    def __init__(self, storage: Reader, directory: str, threads: int | None = None) -> None:
        self._storage = storage
        self._directory = directory
        self._catalog = Catalog(storage, directory)
        self._threads = threads or min(MOST_THREADS, os.cpu_count() or 1)

    def verify(
        self,
        name: str,
        worker: int = 0,
        workers: int = 1,
        *,
        data: bool = True,
        progress: Progressing | None = None,
    ) -> Manifest | None:
        """Checks one worker's share of checkpoint `name`.

        Every worker checks the manifest, the index and the sizes of all files; one worker checks
        each of the workers' own checkpoints.

        Args:
          name: The checkpoint.
          worker: The worker whose share to check.
          workers: The number of workers that share the check.
          data: Whether the bytes of the data files are read, too.
          progress: Receives the progress.

        Returns:
          The checkpoint's manifest in force; None if it has none.

        Raises:
          CheckpointDamagedError: Something is missing or differs; the text says what and where. It
            names the first damaged place, by data file and offset.
        """
        try:
            manifest = self._catalog.manifest(name)
            parts = self._parts(name, manifest, worker, workers)
            if progress is not None:
                total = sum(entry.size for _, _, mine in parts for entry in mine)
                progress.enter("verifying", total if data else 0)
            tasks = [
                functools.partial(self._check_bytes, prefix, run, shards, progress)
                for prefix, shards, mine in parts
                for run in runs(mine)
            ]
            run_all(tasks if data else [], self._threads)
            return manifest
        except OSError as error:
            raise CheckpointDamagedError(
                f"{name} in {self._directory} cannot be read: {explain(error)}."
            ) from error

    def _parts(
        self, name: str, manifest: Manifest | None, worker: int, workers: int
    ) -> list[tuple[str, int, list[BundleEntry]]]:
        """Returns the bundles that one worker checks: prefix, number of files, and entries."""
        path = layout.join(self._directory, layout.index_name(name))
        index = index_reader.read_index(self._storage.read(path))
        for file in manifest.files if manifest is not None else ():
            path = layout.join(self._directory, file.name)
            size = self._storage.size(path)
            if size != file.size:
                raise CheckpointDamagedError(f"{path} has {size} bytes instead of {file.size}.")
        states = manifest.worker_states[worker::workers] if manifest is not None else ()
        parts = [(name, index.num_shards, share(index.stored, worker, workers))]
        for state in states:
            own = self._index_of_state(state)
            parts.append((state.prefix, own.num_shards, list(own.stored)))
        return parts

    def _index_of_state(self, state: StateRecord) -> index_reader.Index:
        """Returns the index of one worker's own state, after checking its checksum."""
        name = layout.index_name(state.prefix)
        path = layout.join(self._directory, name)
        raw = self._storage.read(path)
        found = int(google_crc32c.value(raw))
        if found != state.crc32c:
            raise CheckpointDamagedError(
                f"{path} has the checksum {found:#010x} instead of {state.crc32c:#010x}."
            )
        return index_reader.read_index(raw)

    def _check_bytes(
        self, name: str, run: Sequence[BundleEntry], shards: int, progress: Progressing | None
    ) -> None:
        path = layout.join(self._directory, layout.data_name(name, run[0].shard, shards))
        read: Read = functools.partial(self._storage.read, path)
        if len(run) > 1:
            read = _read_once(read, run)
        try:
            for entry in run:
                verify_entry(entry, read, chunk_size=CHUNK)
                if progress is not None:
                    progress.add(entry.size)
        except CheckpointDamagedError as error:
            raise CheckpointDamagedError(f"{path}: {error}") from error


def share(entries: Sequence[BundleEntry], worker: int, workers: int) -> list[BundleEntry]:
    """Returns the entries that `worker` checks: each entry has one worker; bytes are balanced."""
    loads = [0] * workers
    mine = []
    for entry in sorted(entries, key=lambda e: (-e.size, e.key, e.spec)):
        lightest = loads.index(min(loads))
        loads[lightest] += entry.size + 1
        if lightest == worker:
            mine.append(entry)
    return mine


def runs(entries: Sequence[BundleEntry]) -> list[list[BundleEntry]]:
    """Returns the entries by data file and offset, in runs of neighbours to read together.

    A run of several entries spans no more than `CHUNK` bytes; all but its first are `SMALL`.
    """
    found: list[list[BundleEntry]] = []
    shard, begin, end = -1, 0, 0  # the span of the last run
    for entry in sorted(entries, key=lambda e: (e.shard, e.offset, e.size, e.key, e.spec)):
        after = entry.offset + entry.size
        near = entry.shard == shard and entry.offset - end <= GAP and entry.size <= SMALL
        if near and max(end, after) - begin <= CHUNK:
            found[-1].append(entry)
            end = max(end, after)
        else:
            found.append([entry])
            shard, begin, end = entry.shard, entry.offset, after
    return found


def _read_once(read: Read, run: Sequence[BundleEntry]) -> Read:
    """Returns a `read` for the entries of `run` that reads all their bytes at its first use."""
    begin, end = run[0].offset, max(entry.offset + entry.size for entry in run)
    held: list[bytes] = []

    def piece(offset: int, size: int) -> bytes:
        if not held:
            held.append(read(begin, end - begin))
        return held[0][offset - begin : offset - begin + size]

    return piece
