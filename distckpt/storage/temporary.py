"""Names of files that are being written, which differ from the names of finished files.

A process that dies while writing leaves such a file behind. It is never read, its name is never
reused, and a clean-up may recognise and remove it by its name.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
from collections.abc import Iterator

_PREFIX = "."
_SUFFIX = ".tmp"
_KEPT = 40  # characters of the target's name; the whole name could exceed 255 bytes


def temporary_path(path: str) -> str:
    """Returns an unused path in the directory of `path`, to be renamed to `path` when complete.

    The name is unpredictable, so it meets neither another writer's file nor a planted link.
    """
    directory, name = posixpath.split(path)
    temporary = f"{_beginning(name)}{secrets.token_hex(8)}{_SUFFIX}"
    return posixpath.join(directory, temporary)


@contextlib.contextmanager
def named_errors(temporary: str, path: str) -> Iterator[None]:
    """Lets an OSError about `temporary` name `path`, the file that the user knows."""
    try:
        yield
    except OSError as error:
        if error.filename != temporary:
            raise
        raise OSError(error.errno, error.strerror, path) from error


def is_temporary_of(name: str, path: str) -> bool:
    """Returns whether `name` is a name that `temporary_path` may have made for `path`."""
    return is_temporary(name) and name.startswith(_beginning(posixpath.basename(path)))


def is_temporary(name: str) -> bool:
    """Returns whether `name` (without a directory) is a name that `temporary_path` makes."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def _beginning(name: str) -> str:
    return f"{_PREFIX}{name[:_KEPT]}."
