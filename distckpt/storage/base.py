"""The storage port: the few file operations that the protocol is built from.

Every operation takes plain path strings and raises `OSError` (or a subclass: `FileNotFoundError`,
`FileExistsError`, `PermissionError`, …, with `errno` set) and nothing else, whatever lies below, so
that the roles need not know which adapter they use. The contract is spelled out, clause by clause,
as tests in `distckpt.testing.storage_contract`.
"""

from __future__ import annotations

import abc

from distckpt.storage.temporary import temporary_path


class Storage(abc.ABC):
    """A file system as seen by one process.

    Attributes:
      has_folders: Whether nothing can be written, or renamed, into a folder that is not there. On
        object stores folders are but parts of names: one that has been moved away comes back with
        the next file, so a process must look once more whether it is still its own.
    """

    has_folders = True

    @abc.abstractmethod
    def exists(self, path: str) -> bool:
        """Returns whether `path` is there, as a file or a directory. A dangling link is not."""

    @abc.abstractmethod
    def is_directory(self, path: str) -> bool:
        """Returns whether `path` is a directory."""

    def is_link(self, path: str) -> bool:
        """Returns whether `path` itself is a link, dangling or not; never, where there are none."""
        return False

    @abc.abstractmethod
    def size(self, path: str) -> int:
        """Returns the size of the file `path` in bytes. Raises FileNotFoundError."""

    def modified(self, path: str) -> float | None:
        """Returns when the file `path` was written, in seconds since 1970; None if nothing tells.

        It is the time of the clock that gives files their times there. Raises FileNotFoundError.
        """
        return None

    def free(self, directory: str) -> int | None:
        """Returns how many bytes this process may still write below `directory`; None if unknown.

        Raises FileNotFoundError where it is known, and there is no such directory.
        """
        return None

    @abc.abstractmethod
    def list(self, directory: str) -> list[str]:
        """Returns the sorted names in `directory`; an absent directory is an empty one.

        Raises NotADirectoryError if it is a file.
        """

    def freshen(self, directory: str) -> None:
        """Makes sure that the next `list` of `directory` shows what is there now.

        A client of a network file system may show a listing that is up to a minute old (NFS:
        ``acdirmax``), but not of a directory that it has changed itself since. So a temporary file
        comes and goes. Raises FileNotFoundError if there is no such directory.
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
        """Creates `path` and its parents; it is fine if it exists.

        Raises NotADirectoryError or FileExistsError if a file stands in the way.
        """

    @abc.abstractmethod
    def write(self, path: str, data: bytes, *, durable: bool) -> None:
        """Makes `path` hold `data`, atomically: a reader sees the old content or the new, whole.

        With `durable` it is on stable storage, its name included, when this returns.
        """

    @abc.abstractmethod
    def create(self, path: str, data: bytes, *, durable: bool) -> None:
        """Like `write`, for a file that must not exist: of many that try, one succeeds at the most.

        Raises FileExistsError if it exists, or if another process is just creating it.
        """

    @abc.abstractmethod
    def rename(self, source: str, target: str) -> None:
        """Renames a file or directory; an existing *file* `target` is replaced, atomically.

        Raises FileNotFoundError if `source` is not there. On file systems without an atomic rename
        (object stores) this copies and deletes.
        """

    @abc.abstractmethod
    def remove(self, path: str) -> None:
        """Removes the file (or the link itself) `path`; it is fine if it does not exist."""

    @abc.abstractmethod
    def remove_tree(self, path: str) -> None:
        """Removes a directory and all in it, following no links; fine if it does not exist."""

    @abc.abstractmethod
    def flush(self, path: str) -> None:
        """Forces the file's content to stable storage, whichever process wrote it."""

    @abc.abstractmethod
    def flush_directory(self, path: str) -> None:
        """Forces the directory's entries (creations, renames, removals) to stable storage."""
