"""Names of files that are being written, so that nobody takes one for a finished file.

A process that dies while writing leaves such a file behind. It is never read, its name is never
used again, and whoever cleans a directory may remove it by its looks.
"""

from __future__ import annotations

import posixpath
import secrets

_PREFIX = "."
_SUFFIX = ".tmp"
_KEPT = 40  # characters of the target's name; whole, it could push the name over 255 bytes


def temporary_path(path: str) -> str:
    """Returns an unused path in the directory of `path`, to be renamed to it when it is complete.

    The name is unpredictable, so that neither another writer nor a planted link is met there.
    """
    directory, name = posixpath.split(path)
    temporary = f"{_beginning(name)}{secrets.token_hex(8)}{_SUFFIX}"
    return posixpath.join(directory, temporary)


def is_temporary_of(name: str, path: str) -> bool:
    """Returns whether `name` is one that `temporary_path` may have given for `path`."""
    return is_temporary(name) and name.startswith(_beginning(posixpath.basename(path)))


def is_temporary(name: str) -> bool:
    """Returns whether `name` (without a directory) is one that `temporary_path` gives."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def _beginning(name: str) -> str:
    return f"{_PREFIX}{name[:_KEPT]}."
