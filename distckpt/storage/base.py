"""The storage port: the few file operations that the protocol is built from.

Every operation takes plain path strings and raises `OSError` (or a subclass: `FileNotFoundError`,
`FileExistsError`, `PermissionError`, …, with `errno` set) and nothing else, with every adapter, so
the other packages need not know which adapter they use. The contract is spelled out, clause by
clause, as tests in `distckpt.testing.storage_contract`.
"""

from __future__ import annotations

import abc

from distckpt.storage.temporary import temporary_path


class Storage(abc.ABC):
    """A file system as seen by one process.

    Attributes:
      has_folders: Whether nothing can be written, or renamed, into a folder that does not exist. On
        object stores folders are only parts of names: a folder that was moved away reappears with
        the next file in it, so a process must check again whether the folder is still its own.
    """

    has_folders = True

    @abc.abstractmethod
    def exists(self, path: str) -> bool:
        """Returns whether `path` exists, as a file or a directory; False for a dangling link."""

    @abc.abstractmethod
    def is_directory(self, path: str) -> bool:
        """Returns whether `path` is a directory."""

    def is_link(self, path: str) -> bool:
        """Returns whether `path` itself is a link, even dangling; False where no links exist."""
        return False

    @abc.abstractmethod
    def size(self, path: str) -> int:
        """Returns the size of the file `path` in bytes. Raises FileNotFoundError."""

    def modified(self, path: str) -> float | None:
        """Returns when the file `path` was written, in seconds since 1970; None if unknown.

        The time is by the file system's clock. Raises FileNotFoundError.
        """
        return None

    def free(self, directory: str) -> int | None:
        """Returns how many bytes this process may still write below `directory`; None if unknown.

        Raises FileNotFoundError if it is known, and the directory does not exist.
        """
        return None

    @abc.abstractmethod
    def list(self, directory: str) -> list[str]:
        """Returns the sorted names in `directory`; an absent directory is an empty one.

        Raises NotADirectoryError if it is a file.
        """

    def freshen(self, directory: str) -> None:
        """Makes sure that the next `list` of `directory` is up to date.

        A client of a network file system may show a listing that is up to a minute old (NFS:
        ``acdirmax``), but not of a directory that it has itself changed since. So a temporary file
        is made and removed. Raises FileNotFoundError if the directory does not exist.
        """
        path = temporary_path(f"{directory}/fresh")
        try:
            self.write(path, b"", durable=False)
        finally:
            self.remove(path)

    @abc.abstractmethod
    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Returns `size` bytes from `offset` (all the rest if None; fewer at the end of the file).

        Raises FileNotFoundError, or IsADirectoryError when `path` is a directory.
        """

    @abc.abstractmethod
    def make_directory(self, path: str) -> None:
        """Creates `path` and its parents; does nothing if it exists.

        Raises NotADirectoryError or FileExistsError if a file is in the way.
        """

    @abc.abstractmethod
    def write(self, path: str, data: bytes, *, durable: bool) -> None:
        """Makes `path` hold `data`, atomically: a reader sees all of the old or the new content.

        With `durable` the content and the name are on stable storage when this returns.
        """

    @abc.abstractmethod
    def create(self, path: str, data: bytes, *, durable: bool) -> None:
        """Like `write`, for a file that must not exist: of several callers, at most one succeeds.

        Raises FileExistsError if it exists, or if another process is just creating it.
        """

    @abc.abstractmethod
    def rename(self, source: str, target: str) -> None:
        """Renames a file or directory; an existing *file* `target` is replaced, atomically.

        Raises FileNotFoundError if `source` does not exist. On file systems without an atomic
        rename (object stores) this copies and deletes.
        """

    @abc.abstractmethod
    def remove(self, path: str) -> None:
        """Removes the file (or the link itself) `path`; does nothing if it does not exist."""

    @abc.abstractmethod
    def remove_tree(self, path: str) -> None:
        """Removes a directory and its content if it exists, following no links."""

    @abc.abstractmethod
    def flush(self, path: str) -> None:
        """Forces the file's content to stable storage, whichever process wrote it."""

    @abc.abstractmethod
    def flush_directory(self, path: str) -> None:
        """Forces the directory's entries (creations, renames, removals) to stable storage."""
