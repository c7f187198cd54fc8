"""Resolves an argument of the command line to a checkpoint or a directory. Only reads."""

from __future__ import annotations

import contextlib
import difflib
import posixpath
from typing import NamedTuple

from distckpt.core import layout, listings
from distckpt.errors import ConfigurationError, DirectoryError
from distckpt.runtime import portable
from distckpt.storage import obstacles
from distckpt.storage.base import Storage
from distckpt.storage.choose import storage_for

_SUFFIXES = (layout.manifest_name(""), layout.index_name(""))


class Target(NamedTuple):
    """A checkpoint: the storage, the absolute path or URL of its directory, and its name there."""

    storage: Storage
    directory: str
    name: str

    @property
    def path(self) -> str:
        """The checkpoint's path."""
        return layout.join(self.directory, self.name)


def find_directory(argument: str) -> tuple[Storage, str]:
    """Returns the storage and the absolute path or URL of an existing directory.

    Raises:
      DirectoryError: The directory does not exist.
    """
    path = portable.absolute(argument)
    storage = storage_for(path)
    _refuse_obstacles(storage, path)
    if not storage.is_directory(path):
        hint = nearest(posixpath.basename(path), _folders(storage, posixpath.dirname(path)))
        raise DirectoryError(
            f"{argument} does not exist.{hint or ' Give the directory that a job saves to.'}"
        )
    return storage, path


def with_checkpoints_below(storage: Storage, directory: str) -> list[str]:
    """Returns the names of the folders in `directory` that have checkpoints."""
    found = []
    for name in _folders(storage, directory):
        with contextlib.suppress(OSError):
            files = listings.classify(storage.list(layout.join(directory, name))).checkpoints
            if any(one.has_index or one.has_manifest for one in files.values()):
                found.append(name)
    return found


def nothing_in(storage: Storage, directory: str, argument: str) -> str:
    """Returns what to say of a directory without checkpoints."""
    below = with_checkpoints_below(storage, directory)
    if not below:
        return f"There is no checkpoint in {argument}."
    paths = ", ".join(layout.join(argument.rstrip("/"), name) for name in below[:10])
    more = f" and {len(below) - 10} more" if len(below) > 10 else ""
    return f"There is no checkpoint in {argument}, but there are some in {paths}{more}."


def _folders(storage: Storage, directory: str) -> list[str]:
    try:
        names = [name for name in storage.list(directory) if not name.startswith(".")]
        return sorted(n for n in names if storage.is_directory(layout.join(directory, n)))
    except OSError:
        return []


def find_checkpoint(argument: str) -> Target:
    """Returns the checkpoint that `argument` means.

    Args:
      argument: A checkpoint's path ("/run/ckpt-12"), its index or manifest
        ("/run/ckpt-12.index", "/run/ckpt-12.manifest.json"), or a directory, which means its newest
        checkpoint.

    Raises:
      ConfigurationError: There is no such checkpoint; the text suggests similar names.
      RestoreError: The directory's file `checkpoint` names a checkpoint that does not exist.
    """
    path = portable.absolute(argument)
    storage = storage_for(path)
    if storage.is_directory(path):
        return _newest(storage, path, argument)
    target = named(argument)
    _refuse_obstacles(storage, target.directory)
    if not storage.is_directory(target.directory):
        raise DirectoryError(
            f"There is no directory {target.directory}, so there is no checkpoint {argument} "
            "either."
        )
    _check_is_there(target)
    return target


def _refuse_obstacles(storage: Storage, directory: str) -> None:
    obstacle = obstacles.find(storage, directory)
    if obstacle is not None:
        raise DirectoryError(obstacle)


def named(argument: str) -> Target:
    """Returns the checkpoint named by its path, index or manifest; it need not exist."""
    path = portable.absolute(argument)
    directory, name = posixpath.split(path)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return Target(storage_for(path), directory, name)


def nearest(name: str, known: list[str]) -> str:
    """Returns a hint with the `known` names similar to `name`, or ""."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _newest(storage: Storage, directory: str, argument: str) -> Target:
    from distckpt.directory.catalog import Catalog
    from distckpt.runtime import host
    from distckpt.storage.retrying_reader import RetryingReader

    names = Catalog(RetryingReader(storage), directory, brief=True).candidates(host.now())
    if not names:
        raise ConfigurationError(nothing_in(storage, directory, argument))
    return Target(storage, directory, names[0])


def _check_is_there(target: Target) -> None:
    storage, directory, name = target
    found = listings.classify(storage.list(directory)).checkpoints
    known = [n for n, files in found.items() if files.has_index]
    if name in known:
        return
    if name in found:
        raise ConfigurationError(
            f"{target.path} has lost its index, {layout.index_name(name)}: "
            "without it, the checkpoint cannot be read."
        )
    hint = nearest(name, known)
    if not hint and known:
        hint = f" The newest by number is {known[-1]}."
    raise ConfigurationError(f"There is no checkpoint {name!r} in {directory}.{hint}")
