"""A worker's part of a save: see the chief's probe, write the own share, flush it, report."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence

from distckpt.core import bundle, layout
from distckpt.core.messages import Opening, Report, WrittenFile, WrittenPiece
from distckpt.core.plan import Piece
from distckpt.errors import DirectoryNotSharedError, SaveFailedError, StorageFullError
from distckpt.state.base import CapturedState
from distckpt.storage.base import Storage

# NFS may serve a stale listing of a directory for as long as its attribute cache lives.
PROBE_PATIENCE = 10.0


class Writer:
    """Writes one worker's shard. Every worker, the chief included.

    Args:
      storage: Where the directory is.
      directory: The checkpoint directory.
      worker: This worker's index.
      workers: The number of workers.
      durable: Whether to force the files to stable storage.
    """

    def __init__(
        self, storage: Storage, directory: str, worker: int, workers: int, *, durable: bool
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._worker = worker
        self._stem = layout.shard_stem(worker, workers)
        self._durable = durable

    def write(self, opening: Opening, state: CapturedState, pieces: Sequence[Piece]) -> Report:
        """Writes `pieces` into the pending folder of `opening`.

        Returns:
          The report, made from the bundles' own indexes: their checksums were computed from memory
          while writing, so they say what was meant.

        Raises:
          DirectoryNotSharedError: The chief's probe cannot be seen.
          StorageFullError: No space is left.
          SaveFailedError: Writing failed for another reason.
        """
        started = time.monotonic()
        folder = layout.join(self._directory, layout.pending_name(opening.name, opening.attempt))
        self._await_probe(folder, opening.token)
        try:
            prefixes = state.write(folder, self._stem, pieces)
            return self._report(folder, prefixes, started)
        except OSError as error:
            raise self._explain(error, folder) from error

    def discard(self, opening: Opening) -> None:
        """Removes this worker's own files of a failed attempt. Best effort."""
        folder = layout.join(self._directory, layout.pending_name(opening.name, opening.attempt))
        try:
            for name in self._storage.list(folder):
                if name.startswith(self._stem):
                    self._storage.remove(layout.join(folder, name))
        except OSError:
            return  # the chief removes the folder, now or at its next save

    def _await_probe(self, folder: str, token: str) -> None:
        path = layout.join(folder, layout.PROBE_FILE)
        deadline = time.monotonic() + PROBE_PATIENCE
        pause = 0.001
        while True:
            try:
                if self._storage.read(path).decode(errors="replace") == token:
                    return
            except OSError:
                self._storage.list(self._directory)  # makes NFS look again
            if time.monotonic() >= deadline:
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        raise DirectoryNotSharedError(
            f"worker {self._worker} ({socket.gethostname()}) does not see {path}, which the chief "
            f"has written. {self._directory} is not the same directory on all workers: mount one "
            "shared file system there (NFS, Lustre, a ReadWriteMany volume) on every host."
        )

    def _report(self, folder: str, prefixes: Sequence[str], started: float) -> Report:
        files: list[WrittenFile] = []
        pieces: list[WrittenPiece] = []
        indexes = [layout.index_name(prefix) for prefix in prefixes]
        for prefix, index_file in zip(prefixes, indexes, strict=True):
            index = bundle.read_index(self._storage.read(layout.join(folder, index_file)))
            first = len(files)
            for shard in range(index.num_shards):
                name = layout.data_name(prefix, shard, index.num_shards)
                files.append(WrittenFile(name, self._storage.size(layout.join(folder, name))))
            pieces += [_written(e, first) for e in index.stored]
        known = {f.name for f in files} | set(indexes)
        extras = [
            WrittenFile(name, self._storage.size(layout.join(folder, name)))
            for name in self._storage.list(folder)
            if name.startswith(self._stem) and name not in known
        ]
        if self._durable:
            for name in (*known, *(f.name for f in extras)):
                self._storage.flush(layout.join(folder, name))
            self._storage.flush_directory(folder)
        return Report(
            worker=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            seconds=time.monotonic() - started,
            prefixes=tuple(prefixes),
            files=tuple(files),
            pieces=tuple(pieces),
            extras=tuple(extras),
        )

    def _explain(self, error: OSError, folder: str) -> SaveFailedError:
        where = f"worker {self._worker} ({socket.gethostname()})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFullError(
                f"{where} has no space left to write its shard in {folder} ({error}). The last "
                "checkpoint is untouched. Free some space, or lower max_to_keep, and save again."
            )
        return SaveFailedError(
            f"{where} could not write its shard in {folder}: {error}. The last checkpoint is "
            "untouched; look at that host's file system and save again."
        )


def _written(entry: bundle.BundleEntry, first_file: int) -> WrittenPiece:
    return WrittenPiece(
        key=entry.key,
        dtype=entry.dtype,
        shape=entry.shape,
        spec=entry.spec,
        file=first_file + entry.shard,
        offset=entry.offset,
        size=entry.size,
        crc32c=entry.crc32c,
    )
