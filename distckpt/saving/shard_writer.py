"""Writes a worker's shard: checks the chief's probe, writes, flushes, and makes the report.

A large share is written in several parts at the same time: some are written while one is flushed.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from distckpt.core import attempts, layout
from distckpt.core.protocol.messages import Opening, Report, WrittenFile, WrittenPiece, WrittenState
from distckpt.core.protocol.share_parts import divide
from distckpt.core.protocol.write_plan import Piece
from distckpt.core.tensorflow_format import index_reader
from distckpt.core.tensorflow_format.dtypes import BY_NUMBER
from distckpt.core.tensorflow_format.index_writer import StoredTensor
from distckpt.directory.checkpoint_files import read_index_record
from distckpt.errors import DirectoryNotSharedError, SaveFailedError, StorageFullError
from distckpt.messaging.progress import Progressing
from distckpt.runtime import host
from distckpt.runtime.gc_pause import paused
from distckpt.runtime.run_parallel import run_all
from distckpt.state.base import CapturedState, OwnState
from distckpt.storage.base import Storage

# NFS may serve a stale listing of a directory for as long as its attribute cache lives.
PROBE_PATIENCE = 10.0


@dataclasses.dataclass(frozen=True)
class _Bundle:
    """A written bundle: its data files, and the pieces in them, with `file` from 0."""

    prefix: str
    files: tuple[WrittenFile, ...]
    pieces: tuple[WrittenPiece, ...]


class _Part(NamedTuple):
    """A part of a share: how its files' names begin, and which pieces of which state it has."""

    stem: str
    state: CapturedState
    pieces: Sequence[Piece]


class _Account:
    """Reports how much of a share is written, and then how much is flushed. Thread-safe."""

    def __init__(
        self, progress: Progressing | None, parts: Sequence[_Part], measure: Callable[[], int]
    ) -> None:
        self._progress = progress
        self._left = len(parts)  # yet to be written
        self._flushed = 0
        self._total = sum(piece.nbytes for part in parts for piece in part.pieces)
        self._lock = threading.Lock()
        if progress is not None:
            progress.enter("writing", self._total, measure)

    def written(self) -> None:
        """Notes that a part is written."""
        with self._lock:
            self._left -= 1
            if self._progress is not None and not self._left:
                self._progress.enter("flushing", self._total)
                self._progress.add(self._flushed)

    def flushed(self, size: int) -> None:
        """Notes that a file of `size` bytes is flushed."""
        with self._lock:
            self._flushed += size
            if self._progress is not None and not self._left:
                self._progress.add(size)


class ShardWriter:
    """Writes one worker's shard. Every worker, including the chief.

    Args:
      storage: The directory's storage.
      directory: The checkpoint directory.
      worker: This worker's index.
      workers: The number of workers.
      durable: Whether to force the files to stable storage.
      threads: How many parts to write at the same time.

    Attributes:
      threads: The argument; the save compares as many copies at the same time.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        worker: int,
        workers: int,
        *,
        durable: bool,
        threads: int,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._worker = worker
        self._workers = workers
        self.threads = threads
        self._stem = attempts.shard_stem(worker, workers)
        self._durable = durable

    def write(
        self,
        opening: Opening,
        state: CapturedState,
        pieces: Sequence[Piece],
        is_over: Callable[[], bool] = lambda: False,
        progress: Progressing | None = None,
        own: OwnState | None = None,
    ) -> Report:
        """Writes `pieces` into the pending folder of `opening`.

        Args:
          opening: The attempt.
          state: The held values.
          pieces: This worker's share.
          is_over: Returns whether the save has failed elsewhere; called while the chief's folder is
            not visible, and before each part but the first. From several threads.
          progress: Receives the progress.
          own: What only this worker has; it is written, too.

        Returns:
          The report, made from the bundles' own indexes. Their checksums were computed from memory
          while writing, so they describe what should be in the files.

        Raises:
          DirectoryNotSharedError: The chief's probe is not visible.
          StorageFullError: No space is left.
          SaveFailedError: Writing failed for another reason, or the save is over.
        """
        started = host.monotonic()
        folder = layout.join(self._directory, opening.folder)
        self._await_probe(folder, opening.token, is_over)
        # A state that is not held may have registered savers, which need one stem for all their
        # files.
        threads = self.threads if state.held else 1
        parts = self._parts(state, pieces, own, threads)
        account = _Account(progress, parts, lambda: self._size(folder))

        def write_part(number: int) -> list[_Bundle]:
            if number and is_over():
                raise SaveFailedError(f"worker {self._worker} stopped writing: the save is over.")
            return self._write_part(folder, parts[number], account)

        try:
            tasks = [functools.partial(write_part, number) for number in range(len(parts))]
            bundles = run_all(tasks, threads)
            mine = self._written_state(folder, bundles.pop()) if own is not None else None
            written = [bundle for part in bundles for bundle in part]
            # Only registered savers write files of which the bundles say nothing.
            held = state.held and (own is None or own.values.held)
            extras = () if held else self._extras(folder, written, mine)
            return self._report(folder, written, mine, extras, started)
        except OSError as error:
            raise self._explain(error, folder) from error

    def _parts(
        self, state: CapturedState, pieces: Sequence[Piece], own: OwnState | None, threads: int
    ) -> list[_Part]:
        """Returns the parts of this worker's share; its own state, if there is any, comes last."""
        shares = divide(pieces, self._workers, threads)
        stems = [f"{self._stem}-part-{n}" for n in range(len(shares))]
        if len(stems) == 1:
            stems = [self._stem]
        parts = [_Part(stem, state, share) for stem, share in zip(stems, shares, strict=True)]
        if own is not None:
            stem = attempts.own_stem(self._worker, self._workers)
            parts.append(_Part(stem, own.values, own.pieces))
        return parts

    def discard(self, opening: Opening) -> None:
        """Removes this worker's own files of a failed attempt. Best effort."""
        folder = layout.join(self._directory, opening.folder)
        try:
            for name in self._storage.list(folder):
                if name.startswith(self._stem):
                    self._storage.remove(layout.join(folder, name))
        except OSError:
            return  # the chief removes the folder now or in its next save

    def _await_probe(self, folder: str, token: str, is_over: Callable[[], bool]) -> None:
        path = layout.join(folder, layout.PROBE_FILE)
        deadline = host.monotonic() + PROBE_PATIENCE
        pause = 0.001
        while True:
            try:
                if self._storage.read(path).decode(errors="replace") == token:
                    return
            except OSError:
                self._storage.list(self._directory)  # makes NFS look again
            if is_over():  # the folder is gone, and the next save may wait for this worker
                raise SaveFailedError(
                    f"worker {self._worker} came to write when the chief had ended the save."
                )
            if host.monotonic() >= deadline:
                break
            host.sleep(pause)
            pause = min(2 * pause, 0.5)
        raise DirectoryNotSharedError(
            f"worker {self._worker} ({host.name()}) does not see {path}, which the chief "
            f"has written. {self._directory} is not the same directory on all workers: mount one "
            "shared file system there (NFS, Lustre, a ReadWriteMany volume) on every host."
        )

    def _write_part(self, folder: str, part: _Part, account: _Account) -> list[_Bundle]:
        """Writes and flushes one part; returns its bundles."""
        prefixes = part.state.write(folder, part.stem, part.pieces)
        bundles = [self._bundle(folder, prefix, part.state) for prefix in prefixes]
        account.written()
        for bundle_ in bundles if self._durable else ():
            for file in bundle_.files:
                self._storage.flush(layout.join(folder, file.name))
                account.flushed(file.size)
            self._storage.flush(layout.join(folder, layout.index_name(bundle_.prefix)))
        return bundles

    def _size(self, folder: str) -> int:
        """Returns the bytes of this worker's files, including those with temporary names."""
        names = [name for name in self._storage.list(folder) if name.startswith(self._stem)]
        return sum(self._storage.size(layout.join(folder, name)) for name in names)

    def _bundle(self, folder: str, prefix: str, state: CapturedState) -> _Bundle:
        """Reads the index of a bundle.

        It is decoded only if its bytes are not those that were written.
        """
        data = self._storage.read(layout.join(folder, layout.index_name(prefix)))
        known = state.take_index(prefix)
        with paused():
            if known is not None and known.content == data:
                shards, pieces = 1, tuple(map(_stored, known.stored))
            else:
                index = index_reader.read_index(data)
                shards, pieces = index.num_shards, tuple(map(_written, index.stored))
        names = [layout.data_name(prefix, n, shards) for n in range(shards)]
        sizes = [self._storage.size(layout.join(folder, name)) for name in names]
        files = tuple(WrittenFile(name, size) for name, size in zip(names, sizes, strict=True))
        return _Bundle(prefix, files, pieces)

    def _written_state(self, folder: str, bundles: Sequence[_Bundle]) -> WrittenState:
        (written,) = bundles
        index = read_index_record(self._storage, folder, layout.index_name(written.prefix))
        if index is None:
            raise SaveFailedError(f"{folder} has lost the index of {written.prefix}.")
        return WrittenState(
            written.prefix, WrittenFile(index.name, index.size), index.crc32c, written.files
        )

    def _report(
        self,
        folder: str,
        bundles: Sequence[_Bundle],
        own: WrittenState | None,
        extras: tuple[WrittenFile, ...],
        started: float,
    ) -> Report:
        files: list[WrittenFile] = []
        pieces: list[WrittenPiece] = []
        for written in bundles:
            first = len(files)
            files += written.files
            pieces += [
                msgspec.structs.replace(piece, file=first + piece.file) if first else piece
                for piece in written.pieces
            ]
        if self._durable:
            for file in extras:
                self._storage.flush(layout.join(folder, file.name))
            self._storage.flush_directory(folder)
        return Report(
            worker=self._worker,
            host=host.name(),
            pid=host.pid(),
            seconds=host.monotonic() - started,
            prefixes=tuple(written.prefix for written in bundles),
            files=tuple(files),
            pieces=tuple(pieces),
            extras=extras,
            own=own,
        )

    def _extras(
        self, folder: str, bundles: Sequence[_Bundle], own: WrittenState | None
    ) -> tuple[WrittenFile, ...]:
        """Returns the files that registered savers have written, besides the bundles."""
        known = {file.name for written in bundles for file in written.files}
        known |= {layout.index_name(written.prefix) for written in bundles}
        known |= {file.name for file in (own.index, *own.files)} if own else set()
        return tuple(
            WrittenFile(name, self._storage.size(layout.join(folder, name)))
            for name in self._storage.list(folder)
            if name.startswith(self._stem) and name not in known
        )

    def _explain(self, error: OSError, folder: str) -> SaveFailedError:
        where = f"worker {self._worker} ({host.name()})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFullError(
                f"{where} has no space left to write its shard in {folder} ({error}). The last "
                "checkpoint is untouched. Free some space, or lower max_to_keep, and save again."
            )
        return SaveFailedError(
            f"{where} could not write its shard in {folder}: {error}. The last checkpoint is "
            "untouched; look at that host's file system and save again."
        )


def _stored(tensor: StoredTensor) -> WrittenPiece:
    t = tensor
    dtype = BY_NUMBER[t.dtype].name
    return WrittenPiece(t.key, dtype, t.shape, t.spec, 0, t.offset, t.size, t.crc32c)


def _written(entry: index_reader.BundleEntry) -> WrittenPiece:
    return WrittenPiece(
        key=entry.key,
        dtype=entry.dtype,
        shape=entry.shape,
        spec=entry.spec,
        file=entry.shard,
        offset=entry.offset,
        size=entry.size,
        crc32c=entry.crc32c,
    )
