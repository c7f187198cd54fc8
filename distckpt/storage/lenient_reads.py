"""Reads for which something absent is empty, and so is a path at which something else is."""

from __future__ import annotations

from distckpt.storage.retrying_reader import Reader


def names_in(storage: Reader, folder: str) -> list[str]:
    """Returns the sorted names in `folder`; none if it is absent, or a file."""
    try:
        return storage.list(folder)
    except NotADirectoryError:
        return []


def content_of(storage: Reader, path: str) -> bytes:
    """Returns what the file `path` contains; nothing if it is absent, or a folder."""
    try:
        return storage.read(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
