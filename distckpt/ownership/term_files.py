"""The files of a directory's terms. A new term is above all that the directory mentions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from distckpt.core import layout
from distckpt.errors import DirectoryError
from distckpt.ownership import owner_record
from distckpt.ownership.mentioned_terms import MentionedTerms
from distckpt.ownership.owner_record import Owner
from distckpt.storage.base import Storage


class TermFiles:
    """The terms of one directory. Chief only.

    Args:
      storage: The directory's storage.
      directory: The directory's path.
      durable: Whether the files are forced to stable storage.
    """

    def __init__(self, storage: Storage, directory: str, *, durable: bool) -> None:
        self._storage = storage
        self._directory = directory
        self._folder = layout.terms_folder(directory)
        self._durable = durable
        self._mentioned = MentionedTerms(storage, directory)

    def owner(self) -> Owner | None:
        """Returns who owns the directory; None if nobody does.

        Raises:
          OSError: The directory cannot be read.
        """
        return owner_record.find(self._storage, self._directory)

    def owner_before(self, term: int) -> Owner | None:
        """Returns who owned the directory before `term`, as `owner`; never by an old listing."""
        self.freshen()
        return owner_record.find(self._storage, self._directory, below=term)

    def freshen(self) -> None:
        """Makes sure that `owner` does not rely on an old listing."""
        with contextlib.suppress(FileNotFoundError):  # then nobody owns the directory
            self._storage.freshen(self._folder)

    def path(self, term: int) -> str:
        """Returns the path of the file of `term`."""
        return layout.join(self._folder, layout.term_name(term))

    def older_than(self, term: int) -> list[str]:
        """Returns the names of the files of lower terms. Only the highest counts."""
        taken = owner_record.taken(self._storage, self._directory)
        return [layout.term_name(one) for one in taken if one < term]

    def surpassing(self, term: int) -> tuple[bool, list[str]]:
        """Returns whether the directory mentions a term above `term`, and the names found there.

        Raises:
          OSError: The directory cannot be read.
        """
        self._storage.freshen(self._directory)
        return self._mentioned.highest() > term, self._mentioned.names

    def take(self, me: Callable[[int], Owner], may: Callable[[], bool] = lambda: True) -> bool:
        """Takes a term above all that the directory mentions.

        Processes that come at the same time find the same number, and only one gets it.

        Args:
          me: Returns the content of the file; called before the file exists.
          may: Returns whether the directory may still be taken; called before each attempt.

        Returns:
          Whether a term was taken.

        Raises:
          DirectoryError: There is no term left, or a private folder is a link.
          OSError: The directory cannot be written. The file may exist nevertheless.
        """
        self._prepare()
        term = 0
        while True:
            taken = owner_record.taken(self._storage, self._directory)
            mentioned = self._mentioned.highest(), self._mentioned.highest_abandoned()
            term = max([term, *mentioned, *taken]) + 1
            if term > layout.LARGEST_NUMBER:
                raise DirectoryError(self._exhausted(term - 1))
            if not may():  # checked last: the number must not be above that of a new owner
                return False
            with contextlib.suppress(FileExistsError):  # another process was faster
                self._create(me(term))
                return True

    def replace(self, owner: Owner, folder: str) -> None:
        """Replaces the content of a term's file, by way of `folder`, which is then removed."""
        path = layout.join(folder, layout.term_name(owner.term))
        self._storage.write(path, owner_record.render(owner), durable=False)
        self._storage.rename(path, self.path(owner.term))
        self._storage.remove_tree(folder)

    def remove(self, names: Iterable[str], folder: str) -> None:
        """Removes files of terms, by way of `folder`, which is then removed, too."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._storage.rename(layout.join(self._folder, name), layout.join(folder, name))
        self._storage.remove_tree(folder)

    def _prepare(self) -> None:
        """Makes the private folders, and makes sure that no old listing of them is used."""
        self._refuse_links()
        self._storage.make_directory(self._folder)
        # NFS also caches that a folder does not exist, so a pin from another host could be missed.
        self._storage.make_directory(layout.holds_folder(self._directory))
        for folder in (self._folder, self._directory):
            self._storage.freshen(folder)

    def _create(self, me: Owner) -> None:
        self._storage.create(self.path(me.term), owner_record.render(me), durable=self._durable)
        if self._durable:
            self._flush_parents()

    def _refuse_links(self) -> None:
        """Refuses symbolic links, which would redirect deletions in the private folders."""
        for folder in layout.private_folders(self._directory):
            if self._storage.is_link(folder):
                raise DirectoryError(
                    f"{folder} is a link, so distckpt would delete files in another folder. Remove "
                    "the link; if its target belongs to distckpt, move the target here."
                )

    def _exhausted(self, term: int) -> str:
        return (
            f"{self._directory} mentions term {term}, the highest possible one. No job gets that "
            f"far: a file there is damaged or foreign. Remove it: it is in {self._folder}, or, if "
            "no file there has that term, it is a manifest or a pending folder."
        )

    def _flush_parents(self) -> None:
        self._storage.flush_directory(layout.join(self._directory, layout.PRIVATE_FOLDER))
        self._storage.flush_directory(self._directory)
        for folder in layout.ancestors(self._directory):
            # The job may have made the folder. If not, it may not even be allowed to open it.
            with contextlib.suppress(PermissionError, FileNotFoundError):
                self._storage.flush_directory(folder)
