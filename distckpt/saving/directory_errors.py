"""Which error a chief raises if it cannot begin a save in its directory, and what it advises."""

from __future__ import annotations

import errno

from distckpt.errors import DirectoryError, DistckptError, StorageFullError
from distckpt.runtime import host
from distckpt.storage import obstacles
from distckpt.storage.base import Storage


def explain(storage: Storage, directory: str, error: OSError) -> DistckptError:
    """Returns the error for the program.

    Args:
      storage: Where the directory is.
      directory: Its path.
      error: Why the pending folder could not be made.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(
            f"The chief ({host.name()}) has no space left in {directory} ({error}). The last "
            "checkpoint is untouched. Free some space, or lower max_to_keep, and save again."
        )
    obstacle = obstacles.find(storage, directory)
    if obstacle is not None:
        return DirectoryError(f"The chief cannot save to {directory}: {obstacle}")
    if isinstance(error, PermissionError):
        return DirectoryError(
            f"The chief may not write to {directory} ({error}). Give it the permission, or choose "
            "another directory."
        )
    return DirectoryError(f"The chief cannot save to {directory}: {error}.{_advice(error)}")


def _advice(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return " Mount the file system for writing, and save again."
    if isinstance(error, IsADirectoryError):
        folder = error.filename2 or error.filename
        return f" A folder has the name of a file: move {folder} away."
    return ""
