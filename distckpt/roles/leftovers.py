"""What no longer serves a purpose in a directory: finds it, and removes it for ``distckpt gc``.

A job removes the same with its next save, but for notes, pins and leases about what is gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from distckpt.core import holds, layout
from distckpt.core.holds import Lease
from distckpt.roles import inventory, notes, owner
from distckpt.roles.catalog import Catalog
from distckpt.roles.patient import PatientReader
from distckpt.storage.base import Storage
from distckpt.storage.temporary import is_temporary


@dataclasses.dataclass(frozen=True)
class Leftover:
    """Something to remove.

    Attributes:
      name: Its path, below the directory.
      why: What it is, and why nobody needs it.
      bytes: Its size, or that of all in it.
      folder: Whether it is a folder.
      foreign: Whether it is not distckpt's: it is shown, and left.
    """

    name: str
    why: str
    bytes: int
    folder: bool = False
    foreign: bool = False


class Leftovers:
    """What is left over in one directory. Finding is for any process; removing for its owner.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      now: The time, in seconds since 1970.
    """

    def __init__(self, storage: Storage, directory: str, now: float) -> None:
        self._storage = storage
        self._directory = directory
        self._now = now
        self._listing = layout.classify(storage.list(directory))
        self._there = {n for n, files in self._listing.checkpoints.items() if files.has_index}

    def find(self) -> list[Leftover]:
        """Returns all there is.

        Raises:
          OSError: The directory cannot be read.
        """
        return [
            *self._pending(),
            *self._temporaries(),
            *self._epochs(),
            *self._holds(),
            *self._notes(),
            *self._doctors(),
            *self._data_alone(),
        ]

    def remove_rest(self) -> None:
        """Removes what `Recovery` does not: notes, pins and leases about what is gone.

        Raises:
          OSError: Something cannot be removed.
        """
        for found in [*self._holds(), *self._notes(), *self._doctors()]:
            path = layout.join(self._directory, found.name)
            if found.folder:
                self._storage.remove_tree(path)
            else:
                self._storage.remove(path)

    def _pending(self) -> Iterator[Leftover]:
        for pending in self._listing.pending:
            why = f"of a save of {pending.checkpoint} that did not end"
            yield self._folder(pending.folder, why)
        root = layout.abandoned_root(self._directory)
        for name in self._names(root):
            relative = f"{layout.PRIVATE_FOLDER}/abandoned/{name}"
            yield self._folder(relative, "what a process that took over had begun to settle")

    def _temporaries(self) -> Iterator[Leftover]:
        private = layout.private_folders(self._directory)[1:]
        for folder in (self._directory, *private):
            for name in filter(is_temporary, self._names(folder)):
                path = layout.join(folder, name)
                yield self._file(path, "was being written by a process that died")

    def _epochs(self) -> Iterator[Leftover]:
        epochs = sorted(owner.taken(self._storage, self._directory))
        for epoch in epochs[:-1]:
            path = layout.join(layout.epochs_folder(self._directory), layout.epoch_name(epoch))
            yield self._file(path, "of a process that another has replaced")

    def _holds(self) -> Iterator[Leftover]:
        folder = layout.holds_folder(self._directory)
        for name in self._names(folder):
            said = layout.parse_hold_name(name)
            if said is None:
                continue
            path = layout.join(folder, name)
            checkpoint, token = said
            if checkpoint not in self._there:
                kind = "pin" if token is None else "lease"
                yield self._file(path, f"a {kind} of {checkpoint}, which is not there")
            elif token is not None and not self._still_holds(path, name):
                yield self._file(path, f"a lease on {checkpoint} that has run out")

    def _still_holds(self, path: str, name: str) -> bool:
        try:
            hold = holds.parse(name, self._storage.read(path))
        except OSError:
            return True  # it has just gone, or cannot be judged
        return isinstance(hold, Lease) and hold.holds(self._now)

    def _notes(self) -> Iterator[Leftover]:
        reader = PatientReader(self._storage)
        catalog = Catalog(reader, self._directory)
        for folder, kind in (
            (layout.quarantine_folder(self._directory), "damage"),
            (layout.verified_folder(self._directory), "verification"),
        ):
            valid = {layout.note_name(n) for n in notes.read(reader, folder, catalog.index_crc32c)}
            for name in self._names(folder):
                if name not in valid and not is_temporary(name):
                    why = f"a note on the {kind} of a checkpoint that is gone or has changed"
                    yield self._file(layout.join(folder, name), why)

    def _doctors(self) -> Iterator[Leftover]:
        for name in self._listing.others:
            if name.startswith(layout.DOCTOR_PREFIX):
                yield self._folder(name, "a trial of `distckpt doctor` that did not end")

    def _data_alone(self) -> Iterator[Leftover]:
        for name, files in self._listing.checkpoints.items():
            if files.has_index or files.has_manifest:
                continue
            why = f"of {name}, which has no index: not distckpt's to remove"
            for file in (*files.data, *files.workers):
                found = self._file(layout.join(self._directory, file), why)
                yield dataclasses.replace(found, foreign=True)

    def _file(self, path: str, why: str) -> Leftover:
        name = path[len(layout.join(self._directory, "")) :]
        return Leftover(name, why, inventory.size_of(self._storage, path))

    def _folder(self, name: str, why: str) -> Leftover:
        return Leftover(name, why, self._bytes_in(layout.join(self._directory, name)), folder=True)

    def _bytes_in(self, folder: str) -> int:
        total = 0
        for name in self._names(folder):
            path = layout.join(folder, name)
            if self._storage.is_link(path):
                continue
            if self._storage.is_directory(path):
                total += self._bytes_in(path)
            else:
                total += inventory.size_of(self._storage, path)
        return total

    def _names(self, folder: str) -> list[str]:
        if self._storage.is_link(folder) and folder != self._directory:
            return []
        try:
            return self._storage.list(folder)
        except NotADirectoryError:
            return []
