"""Finds files in a directory that are no longer needed, and removes them for ``distckpt gc``.

A job's next save removes the same files, except notes, pins and leases of deleted checkpoints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from distckpt.core import layout, listings, pins_and_leases
from distckpt.core.pins_and_leases import Lease
from distckpt.directory import verification_notes
from distckpt.directory.catalog import Catalog
from distckpt.inspection import inventory, set_aside
from distckpt.ownership import owner_record
from distckpt.storage.base import Storage
from distckpt.storage.lenient_reads import names_in
from distckpt.storage.retrying_reader import RetryingReader
from distckpt.storage.temporary import is_temporary


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A file or folder to remove.

    Attributes:
      name: Its path, below the directory.
      why: What it is, and why it is not needed.
      bytes: Its size, or that of all its content.
      folder: Whether it is a folder.
      foreign: Whether it is not distckpt's: it is shown, and kept.
    """

    name: str
    why: str
    bytes: int
    folder: bool = False
    foreign: bool = False


class Garbage:
    """The leftovers in one directory. Any process may find them; only the owner may remove them.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      now: The time, in seconds since 1970.
    """

    def __init__(self, storage: Storage, directory: str, now: float) -> None:
        self._storage = storage
        self._directory = directory
        self._now = now
        self._listing = listings.classify(storage.list(directory))
        self._there = {n for n, files in self._listing.checkpoints.items() if files.has_index}

    def find(self) -> list[Leftover]:
        """Returns all leftovers.

        Raises:
          OSError: The directory cannot be read.
        """
        return [
            *self._pending(),
            *self._rollback(),
            *self._temporaries(),
            *self._terms(),
            *self._holds(),
            *self._notes(),
            *self._doctors(),
            *self._data_alone(),
        ]

    def remove_rest(self) -> None:
        """Removes what `AttemptCleanup` does not: notes, pins and leases of deleted checkpoints.

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
            why = f"of an unfinished save of {pending.checkpoint}"
            yield self._folder(pending.folder, why)
        root = layout.abandoned_root(self._directory)
        for name in self._names(root):
            relative = f"{layout.PRIVATE_FOLDER}/abandoned/{name}"
            yield self._folder(relative, "an attempt that another process had begun to settle")

    def _rollback(self) -> Iterator[Leftover]:
        path = layout.rollback_path(self._directory)
        if not self._storage.exists(path):
            return
        what = Catalog(RetryingReader(self._storage), self._directory, warns=False).rollback()
        why = f" to {what.to}: sets aside {', '.join(what.names)}" if what is not None else ""
        yield self._file(path, f"of an unfinished rollback{why}")

    def _temporaries(self) -> Iterator[Leftover]:
        private = layout.private_folders(self._directory)[1:]
        for folder in (self._directory, *private):
            for name in filter(is_temporary, self._names(folder)):
                path = layout.join(folder, name)
                yield self._file(path, "was being written by a process that died")

    def _terms(self) -> Iterator[Leftover]:
        terms = sorted(owner_record.taken(self._storage, self._directory))
        for term in terms[:-1]:
            path = layout.join(layout.terms_folder(self._directory), layout.term_name(term))
            yield self._file(path, "of a process that another has replaced")

    def _holds(self) -> Iterator[Leftover]:
        folder = layout.holds_folder(self._directory)
        there = self._there | self._set_aside()
        for name in self._names(folder):
            said = layout.parse_hold_name(name)
            if said is None:
                continue
            path = layout.join(folder, name)
            checkpoint, token = said
            if checkpoint not in there:
                kind = "pin" if token is None else "lease"
                yield self._file(path, f"a {kind} of {checkpoint}, which does not exist")
            elif token is not None and not self._still_holds(path, name):
                yield self._file(path, f"a lease on {checkpoint} that has expired")

    def _set_aside(self) -> set[str]:
        """Returns what rollbacks have set aside: a pin holds again when it is moved back."""
        folders = set_aside.look(self._storage, self._directory, self._listing.others)
        return {name for folder in folders for name in folder.checkpoints}

    def _still_holds(self, path: str, name: str) -> bool:
        try:
            hold = pins_and_leases.parse(name, self._storage.read(path))
        except OSError:
            return True  # it has just been removed, or cannot be judged
        return isinstance(hold, Lease) and hold.holds(self._now)

    def _notes(self) -> Iterator[Leftover]:
        reader = RetryingReader(self._storage)
        catalog = Catalog(reader, self._directory)
        for folder, kind in (
            (layout.quarantine_folder(self._directory), "damage"),
            (layout.verified_folder(self._directory), "verification"),
        ):
            valid = {
                layout.note_name(n)
                for n in verification_notes.read(reader, folder, catalog.index_crc32c)
            }
            for name in self._names(folder):
                if name not in valid and not is_temporary(name):
                    why = f"a note on the {kind} of a checkpoint that was deleted or has changed"
                    yield self._file(layout.join(folder, name), why)

    def _doctors(self) -> Iterator[Leftover]:
        for name in self._listing.others:
            if name.startswith(layout.DOCTOR_PREFIX):
                yield self._folder(name, "an unfinished test of `distckpt doctor`")

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
        return names_in(self._storage, folder)
