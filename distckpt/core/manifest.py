"""The manifest: the file whose presence commits a checkpoint.

``ckpt-12.manifest.json`` says what was meant to be written: every tensor entry with its pieces
(file, offset, size, checksum), every file with its size, the index with its checksum, and which
worker wrote what, and when. docs/manifest.md is the reference of the format.

While an existing checkpoint is being replaced, the manifest holds both versions: the new one, and
under ``replaces`` the old one. The checksum of the index file tells which version is in force:
renaming that file is the instant of the switch (see `Manifest.in_force`).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import msgspec

from distckpt.core.protocol.phases import Phase
from distckpt.errors import ManifestError


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of the checkpoint. `worker` wrote its bytes; `name` is relative to the directory."""

    name: str
    size: int
    worker: int


@dataclasses.dataclass(frozen=True)
class IndexRecord:
    """The merged index: its name, its size in bytes, and the CRC32C of its bytes (not masked)."""

    name: str
    size: int
    crc32c: int


class PieceRecord(msgspec.Struct, frozen=True, gc=False):
    """The place of a part of a tensor: which of `Manifest.files`, offset and size in bytes.

    `crc32c` is the masked CRC32C that TensorFlow's writer computed from memory while writing.
    `spec` is the slice spec, "" for a whole tensor.
    """

    file: int
    offset: int
    size: int
    crc32c: int
    spec: str = ""


class EntryRecord(msgspec.Struct, frozen=True, gc=False):
    """A tensor of the checkpoint and the pieces it is stored in.

    There may be a million: a structure of msgspec is made ten times faster than a dataclass.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[PieceRecord, ...]


@dataclasses.dataclass(frozen=True)
class WorkerRecord:
    """What one worker did: its host and process, the bytes written, the seconds including flushes.

    `phases` are its phases in order; empty if the manifest has none.
    """

    worker: int
    host: str
    pid: int
    bytes: int
    seconds: float
    phases: tuple[Phase, ...] = ()


@dataclasses.dataclass(frozen=True)
class StateRecord:
    """The own state of `worker`: a small checkpoint.

    Attributes:
      worker: The worker's index.
      prefix: Its name, e.g. "ckpt-12.worker-00001-of-00004". Its index and data files are among
        `Manifest.files`.
      crc32c: The CRC32C of its index's bytes, not masked; the index has the other checksums.
    """

    worker: int
    prefix: str
    crc32c: int


@dataclasses.dataclass(frozen=True)
class Pointer:
    """Checksums of TensorFlow's file `checkpoint`, to find out later whether it has changed.

    Attributes:
      crc32c: The CRC32C of its bytes, not masked.
      index_crc32c: The CRC32C of the index of the newest checkpoint that the file names, if the
        file has no times: ``tf.train.Checkpoint.save`` writes the same file again when it saves the
        same name again. None if the file has times, or if that index does not exist.
    """

    crc32c: int
    index_crc32c: int | None = None


@dataclasses.dataclass(frozen=True)
class Retention:
    """The retention of the job that saved a checkpoint: its manager's arguments.

    Attributes:
      max_to_keep: How many of the newest are kept; None for all.
      every_hours: As ``keep_checkpoint_every_n_hours``; None for none.
      keep: `ManagerOptions.keep` as a text, "" for none.
    """

    max_to_keep: int | None = None
    every_hours: float | None = None
    keep: str = ""


@dataclasses.dataclass(frozen=True)
class Replaced:
    """The version that is being replaced: its index, its other files, its manifest if any."""

    index: IndexRecord
    files: tuple[str, ...]
    manifest: Manifest | None


class Commit(NamedTuple):
    """Identifies a commit: the checkpoint's name and the id of the attempt that committed it."""

    name: str
    attempt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """What a manifest says first: all that most readers need. It can be read alone.

    Attributes:
      name: The checkpoint's name, e.g. "ckpt-12".
      step: The training step if a step counter was given, else the checkpoint's number.
      term: The term of the chief that committed it.
      sequence: Counts the commits of that term, from 1. (term, sequence) orders checkpoints.
      attempt: The id of the attempt.
      committed_at: Seconds since 1970, by the chief's clock.
      seconds: Duration of the save on the chief up to the commit.
      versions: Versions of distckpt, tensorflow and python.
      index: The index file.
      follows: TensorFlow's file before the commit; None if it did not exist, or if the manifest
        does not say. While the file is the same, it does not name this checkpoint.
      metrics: What ``save(metrics=…)`` was given.
      retention: The job's retention; None if the manifest does not say.
      checksum_verified: Whether it was read from a file with a correct checksum of its own. Two
        manifests that differ only in this are equal.
    """

    name: str
    step: int
    term: int
    sequence: int
    attempt: str
    committed_at: float
    seconds: float
    versions: dict[str, str]
    index: IndexRecord
    follows: Pointer | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    retention: Retention | None = None
    checksum_verified: bool = dataclasses.field(default=False, compare=False)

    @property
    def order(self) -> tuple[int, int]:
        """Defines "newer": greater by term, then by the order of commits in the term."""
        return (self.term, self.sequence)

    @property
    def commit(self) -> Commit:
        """Tells this commit from every other, even one of the same name."""
        return Commit(self.name, self.attempt)

    def in_force(self, index_crc32c: int) -> Head | None:
        """Returns the head of the version on disk, identified by the index file's CRC32C.

        Returns None if the version on disk is the replaced one and had no manifest.

        Raises:
          ManifestError: The index belongs to neither version.
        """
        if index_crc32c == self.index.crc32c:
            return self
        raise ManifestError(
            f"{self.index.name} is not the index that the manifest of {self.name} was written for "
            f"(checksum {index_crc32c:#010x}, expected {self.index.crc32c:#010x}). The checkpoint "
            "is damaged or was overwritten by another program."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(Head):
    """A committed checkpoint.

    Attributes:
      files: The data files, by the number in their names, then others.
      entries: The tensors, sorted by key.
      workers: One record for each worker.
      replaces: While this checkpoint replaces one of the same name: the replaced one.
      worker_states: The workers' own states: one for each worker, or none at all.
    """

    files: tuple[FileRecord, ...]
    entries: tuple[EntryRecord, ...]
    workers: tuple[WorkerRecord, ...]
    replaces: Replaced | None = None
    worker_states: tuple[StateRecord, ...] = ()

    @property
    def bytes(self) -> int:
        """Total size of the checkpoint's files, without the manifest."""
        return self.index.size + sum(f.size for f in self.files)

    @property
    def claims(self) -> frozenset[str]:
        """Names of all files except indexes that this manifest or the one it replaces needs."""
        old = self.replaces.files if self.replaces else ()
        return frozenset(f.name for f in self.files) | frozenset(old)

    def tells_of(self, index: IndexRecord) -> bool:
        """Returns whether `index` belongs to this version or to the one that it replaces."""
        return index == self.index or (self.replaces is not None and index == self.replaces.index)

    def in_force(self, index_crc32c: int) -> Manifest | None:
        """Does what `Head.in_force` promises, with the manifest of the version on disk."""
        if self.replaces and index_crc32c == self.replaces.index.crc32c != self.index.crc32c:
            return self.replaces.manifest
        super().in_force(index_crc32c)
        return self
