"""Sorts the names in a checkpoint directory: files of checkpoints, pending folders, others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from distckpt.core import attempts, layout
from distckpt.core.attempts import Pending

# Every name of ours has one of these.
_ENDINGS = (layout.INDEX_SUFFIX, layout.MANIFEST_SUFFIX)
_DATA, _PENDING = ".data-", ".pending-"


class CheckpointFiles(NamedTuple):
    """The files of one checkpoint that a directory listing shows.

    Attributes:
      name: The checkpoint's name.
      has_index: Whether its index exists.
      has_manifest: Whether its manifest exists: then it is committed.
      data: Names of its data files, sorted; may include data files of an older version.
      workers: Names of the files of the workers' own checkpoints, sorted.
    """

    name: str
    has_index: bool
    has_manifest: bool
    data: tuple[str, ...]
    workers: tuple[str, ...]


class Listing(NamedTuple):
    """A directory listing, understood.

    Attributes:
      checkpoints: The checkpoints by name, in the order of name and number ("ckpt-9", "ckpt-10").
        One may be incomplete: a manifest without an index, data files alone.
      pending: Pending folders, by age.
      others: All other names, sorted.
    """

    checkpoints: dict[str, CheckpointFiles]
    pending: tuple[Pending, ...]
    others: tuple[str, ...]


def classify(names: Iterable[str]) -> Listing:
    """Sorts the names in a checkpoint directory by what they are."""
    found: dict[str, list[str]] = {}
    pending: list[Pending] = []
    others: list[str] = []
    for file in sorted(names):
        if not (file.endswith(_ENDINGS) or _DATA in file or _PENDING in file):
            others.append(file)  # quickly: there may be a hundred thousand foreign files
            continue
        plain = "/" not in file
        owner = owner_of(file) if plain else None
        save = attempts.parse_pending_name(file) if plain else None
        if owner:
            found.setdefault(owner, []).append(file)
        elif save:
            pending.append(save)
        else:
            others.append(file)
    pending.sort(key=lambda save: save.attempt)
    checkpoints = {name: _gather(name, found[name]) for name in sorted(found, key=_natural_order)}
    return Listing(checkpoints, tuple(pending), tuple(others))


def parse_worker_file(file: str) -> layout.WorkerPrefix | None:
    """Returns what the name of a worker's own checkpoint's file says, or None if it is not one."""
    prefix = _bundle_prefix(file)
    return layout.parse_worker_prefix(prefix) if prefix else None


def owner_of(file: str) -> str | None:
    """Returns the name of the checkpoint that `file` belongs to, or None."""
    if len(file) > len(layout.MANIFEST_SUFFIX) and file.endswith(layout.MANIFEST_SUFFIX):
        return file[: -len(layout.MANIFEST_SUFFIX)]
    prefix = _bundle_prefix(file)
    worker = layout.parse_worker_prefix(prefix) if prefix else None
    return worker.checkpoint if worker else prefix


def _bundle_prefix(file: str) -> str | None:
    if len(file) > len(layout.INDEX_SUFFIX) and file.endswith(layout.INDEX_SUFFIX):
        return file[: -len(layout.INDEX_SUFFIX)]
    data = layout.parse_data_name(file)
    return data.checkpoint if data else None


def _gather(name: str, files: list[str]) -> CheckpointFiles:
    special = (layout.index_name(name), layout.manifest_name(name))
    parsed = {file: layout.parse_data_name(file) for file in files if file not in special}
    data = tuple(file for file, said in parsed.items() if said and said.checkpoint == name)
    workers = tuple(file for file in parsed if file not in data)
    return CheckpointFiles(name, special[0] in files, special[1] in files, data, workers)


def _natural_order(name: str) -> tuple[str, int]:
    prefix, number = layout.split_number(name)
    return prefix, -1 if number is None else number
