"""Checks that names of checkpoints and files are safe: they never lead out of the directory."""

from __future__ import annotations

import re

from distckpt.core import attempts, layout, listings
from distckpt.errors import ConfigurationError, ManifestError

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_DRIVE = re.compile("[A-Za-z]:")
# File systems allow 255 bytes. distckpt appends the number and the id of the attempt: up to 90.
_MOST_BYTES = 150


def check_checkpoint_name(name: str) -> str:
    """Returns `name` if it can begin the names of checkpoints, as "ckpt" does.

    Raises:
      ConfigurationError: It is empty, has more than 150 bytes, a separator, a control character
        or a character that UTF-8 cannot express, or is the name of another file of the directory.
    """
    why = _refusal(name)
    if not why and name == layout.PRIVATE_FOLDER:
        why = "it is the name of another file there"
    if not why and _CONTROL.search(name):
        why = "it has a control character"
    if not why and not _is_unicode(name):
        why = "it is not valid Unicode"
    if not why and len(name.encode()) > _MOST_BYTES:
        why = f"it has {len(name.encode())} bytes, more than {_MOST_BYTES}"
    if why:
        raise ConfigurationError(
            f"checkpoint_name={name!r} cannot be used: {why}. It must be a plain file name such as "
            '"ckpt"; put folders into `directory`.'
        )
    return name


def safe_name(name: str, checkpoint: str | None = None) -> str:
    """Returns `name` if it is the name of a file directly in the directory.

    For names from a manifest: reading, and above all deleting, must never leave the directory,
    whatever the manifest says.

    Args:
      name: The file name.
      checkpoint: If given, `name` must also belong to that checkpoint: begin with "ckpt-12." or, as
        the files of the state's own savers, with "ckpt-12-", and be neither a file of another
        checkpoint nor a pending folder.

    Raises:
      ManifestError: `name` is empty, absolute, has a separator, a drive letter, a NUL or half a
        surrogate pair, is "." or "..", or does not belong to `checkpoint`.
    """
    why = _refusal(name)
    if not why and checkpoint is not None and not _is_file_of(name, checkpoint):
        why = f"it is not one of the files of {checkpoint}"
    if why:
        raise ManifestError(f"The manifest names the file {name!r}, which is not safe: {why}.")
    return name


def safe_checkpoint(name: str) -> str:
    """Returns `name` if the files of a checkpoint of that name are directly in the directory.

    Raises:
      ManifestError: They are not (see `safe_name`), or `name` is not valid Unicode:
        `check_checkpoint_name` refuses such a name, and TensorFlow's `checkpoint` file could not
        hold it.
    """
    if not _is_unicode(safe_name(name)):
        raise ManifestError(f"The manifest is of {name!r}, which is not valid Unicode.")
    return name


def _is_file_of(file: str, checkpoint: str) -> bool:
    if not file.startswith((f"{checkpoint}.", f"{checkpoint}-")) or attempts.parse_pending_name(
        file
    ):
        return False
    owner = listings.owner_of(
        file
    )  # "ckpt-1" may exist beside "ckpt-1-2", of another checkpoint_name
    return owner is None or owner == checkpoint or layout.split_number(owner)[1] is None


def _refusal(name: object) -> str:
    """Returns why `name` is not the name of a file directly in a directory, or ""."""
    if not isinstance(name, str):
        return "it is not text"
    if not name or name in (".", ".."):
        return "it names no file"
    if "/" in name or "\\" in name:
        return "it has a path separator"
    if "\x00" in name:
        return "it has a NUL character"
    if not _is_unicode(name, errors="surrogateescape"):  # as `os.listdir` gives other bytes
        return "it has characters that no file name can have"
    return "it begins with a drive letter" if _DRIVE.match(name) else ""


def _is_unicode(name: str, errors: str = "strict") -> bool:
    try:
        name.encode(errors=errors)
    except UnicodeEncodeError:
        return False
    return True
