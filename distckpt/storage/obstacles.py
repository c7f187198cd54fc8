"""Explains why a directory cannot be used, better than the operating system's error.

For a link to a missing mount, a link to itself or a file in place of a folder, the system says
little more than "File exists" or "No such file or directory", and names the requested path, not the
part of it that is wrong.
"""

from __future__ import annotations

import errno

from distckpt.core import layout
from distckpt.errors import explain, reason
from distckpt.storage.base import Storage

# Errors of a mounted file system that does not work, or no longer works.
_GONE = {
    *("ENOTCONN", "ESTALE", "ENODEV", "ENXIO", "EIO", "EREMOTEIO", "ETIMEDOUT"),
    *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
}


def find(storage: Storage, directory: str) -> str | None:
    """Returns why `directory` cannot be used and what to do about it; None if it can be.

    The text has one sentence or more about the outermost wrong part of the path. A directory that
    does not exist yet is no obstacle.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
    """
    above = [] if "://" in directory else reversed(layout.ancestors(directory))
    for path in (*above, directory):
        found = _of(storage, path)
        if found is not None:
            return found
    return None


def _of(storage: Storage, path: str) -> str | None:
    is_link = False
    try:
        is_link = storage.is_link(path)
        if storage.is_directory(path):
            return None
        if storage.exists(path):
            what = "a symbolic link to a file" if is_link else "a file"
            return f"{path} is {what}. Move it away, or give another directory."
    except OSError as error:
        return _of_error(error, path)
    if not is_link:
        return None
    return (
        f"{path} is a symbolic link to a target that does not exist. Make, or mount, the target "
        f"(readlink {path} shows it); or remove the link, or give another directory."
    )


def _of_error(error: OSError, path: str) -> str:
    if error.errno == errno.ELOOP:
        return (
            f"{path} is a symbolic link that leads back to itself. Point it to a directory, or "
            "remove it."
        )
    if isinstance(error, PermissionError):
        return (
            f"This process may not search the folder of {path}. Grant it access (x on each "
            "folder of the path), or give another directory."
        )
    if errno.errorcode.get(error.errno or 0) in _GONE:
        return (
            f"The file system of {path} does not answer ({reason(error)}). Was it unmounted, or is "
            "its server down? Mount it again."
        )
    return f"{explain(error)}. Give another directory."
