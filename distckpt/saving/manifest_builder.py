"""Builds the manifest that will commit an attempt. Chief only.

Its content comes from the workers' reports. Only the merged index, the sizes of the files, and
TensorFlow's `checkpoint` file before the commit are read.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata

from distckpt.core import attempts, layout, listings, safe_names
from distckpt.core.manifest import (
    EntryRecord,
    FileRecord,
    Manifest,
    PieceRecord,
    Retention,
    StateRecord,
    WorkerRecord,
)
from distckpt.core.protocol.messages import Opening, Report
from distckpt.directory.catalog import Catalog
from distckpt.directory.checkpoint_files import read_index_record
from distckpt.errors import ManifestError, SaveFailedError
from distckpt.runtime import host
from distckpt.runtime.gc_pause import paused
from distckpt.storage.base import Storage


@dataclasses.dataclass(frozen=True)
class Label:
    """What the program says about a checkpoint, for its manifest.

    Attributes:
      step: The training step.
      metrics: The argument of ``save(metrics=…)``.
      retention: The job's retention rules.
    """

    step: int
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    retention: Retention | None = None


class ManifestBuilder:
    """Makes manifests of merged attempts in one directory. Chief only.

    Args:
      storage: The directory's storage.
      directory: The directory's path.
    """

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._catalog = Catalog(storage, directory)

    def manifest(
        self,
        opening: Opening,
        reports: Sequence[Report],
        label: Label,
        seconds: float,
        names: Sequence[str],
    ) -> Manifest:
        """Returns the manifest of a merged attempt whose files are still in the pending folder.

        Args:
          opening: The attempt.
          reports: All reports, in the order in which they were merged.
          label: The program's label.
          seconds: Duration of the save so far.
          names: What is in the directory; the workers' own checkpoints get other names.

        Raises:
          SaveFailedError: The files are not those that the workers have reported.
          OSError: The files or TensorFlow's file cannot be read.
        """
        folder = layout.join(self._directory, opening.folder)
        index = read_index_record(self._storage, folder, layout.index_name(opening.name))
        if index is None:
            raise SaveFailedError(f"{folder} has lost its merged index.")
        attempt = attempts.parse_attempt_id(opening.attempt)
        assert attempt is not None
        has_states = any(report.own for report in reports)
        states = _States(opening.name, reports, names if has_states else ())
        data = self._data(folder, opening.name, reports)
        return Manifest(
            name=opening.name,
            step=label.step,
            term=attempt.term,
            sequence=attempt.sequence,
            attempt=opening.attempt,
            committed_at=host.now(),
            seconds=seconds,
            index=index,
            files=(*data, *extra_files(opening.name, reports), *states.files),
            entries=merged_entries(reports),
            workers=tuple(
                WorkerRecord(r.worker, r.host, r.pid, r.bytes, r.seconds, r.phases) for r in reports
            ),
            versions=_versions(),
            follows=self._catalog.pointer(),
            worker_states=states.records,
            metrics=dict(label.metrics),
            retention=label.retention,
        )

    def _data(self, folder: str, name: str, reports: Sequence[Report]) -> list[FileRecord]:
        """Returns the merged data files, whose sizes must be those in the reports."""
        parsed = {n: layout.parse_data_name(n) for n in self._storage.list(folder)}
        data = sorted(n for n, said in parsed.items() if said and said.checkpoint == name)
        files = merged_files(data, reports)
        for file in files:
            size = self._storage.size(layout.join(folder, file.name))
            if size != file.size:
                raise SaveFailedError(
                    f"{file.name} has {size} bytes; worker {file.worker} wrote {file.size}. "
                    "The file system does not show the chief what the worker wrote."
                )
        return files


def merged_files(names: Sequence[str], reports: Sequence[Report]) -> list[FileRecord]:
    """Returns the merged data files with the worker of each; empty ones count as the chief's."""
    written = [(f.size, r.worker) for r in reports for f in r.files]
    written += [(0, 0)] * (len(names) - len(written))
    return [
        FileRecord(name, size, worker) for name, (size, worker) in zip(names, written, strict=True)
    ]


@paused()
def merged_entries(reports: Sequence[Report]) -> tuple[EntryRecord, ...]:
    """Returns the entries of all reports, sorted by key, with files numbered over all reports."""
    entries = []
    divided: dict[str, tuple[str, tuple[int, ...], list[PieceRecord]]] = {}
    first = 0
    for report in reports:
        for p in report.pieces:
            record = PieceRecord(first + p.file, p.offset, p.size, p.crc32c, p.spec)
            if p.spec:
                shape = tuple(int(d) for d in p.spec.split(" ")[:-1])
                divided.setdefault(p.key, (p.dtype, shape, []))[2].append(record)
            else:
                entries.append(EntryRecord(p.key, p.dtype, p.shape, (record,)))
        first += len(report.files)
    entries += [
        EntryRecord(key, dtype, shape, tuple(pieces))
        for key, (dtype, shape, pieces) in divided.items()
    ]
    return tuple(sorted(entries, key=operator.attrgetter("key")))


def extra_files(name: str, reports: Sequence[Report]) -> list[FileRecord]:
    """Returns the files of registered savers, with the names that TensorFlow gives them.

    Raises:
      SaveFailedError: A name could be that of another checkpoint's file.
    """
    records = []
    for report in reports:
        stem = attempts.shard_stem(report.worker, len(reports))
        for file in report.extras:
            target = name + file.name[len(stem) :]
            try:
                safe_names.safe_name(target, name)
            except ManifestError:
                raise SaveFailedError(
                    f"A saver that the program has registered wrote {target!r}, which could be a "
                    "file of another checkpoint. Do not name its files like checkpoints with a "
                    "number."
                ) from None
            records.append(FileRecord(target, file.size, report.worker))
    return records


def sources(reports: Sequence[Report]) -> list[str]:
    """Returns the names in the pending folder of a manifest's files after the data files."""
    extras = [file.name for report in reports for file in report.extras]
    own = [report.own for report in reports if report.own]
    return extras + [file.name for state in own for file in (state.index, *state.files)]


class _States:
    """The files of the workers' own states, with the names that they will have in the directory.

    No file in the directory has one of these names, so a replaced version stays complete.

    Args:
      name: The checkpoint's name.
      reports: All reports.
      listing: The names in the directory.
    """

    def __init__(self, name: str, reports: Sequence[Report], listing: Sequence[str]) -> None:
        parsed = filter(None, map(listings.parse_worker_file, listing))
        version = 1 + max((p.version for p in parsed if p.checkpoint == name), default=-1)
        files: list[FileRecord] = []
        records: list[StateRecord] = []
        for report in reports:
            own = report.own
            if own is None:
                continue
            prefix = layout.worker_prefix(name, report.worker, len(reports), version)
            for file in (own.index, *own.files):
                target = prefix + file.name[len(own.prefix) :]
                files.append(FileRecord(target, file.size, report.worker))
            records.append(StateRecord(report.worker, prefix, own.crc32c))
        self.files = tuple(files)
        self.records = tuple(records)


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("distckpt", "tensorflow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # e.g. tensorflow-cpu, or a source checkout
            versions[package] = "unknown"
    return versions
