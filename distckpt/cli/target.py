"""Resolves an argument of the command line to a checkpoint or a directory. Only reads."""

from __future__ import annotations

import contextlib
import difflib
import posixpath
from typing import TYPE_CHECKING, NamedTuple

from distckpt.cli import shown_paths, unfinished
from distckpt.core import layout, listings
from distckpt.errors import CheckpointDamagedError, ConfigurationError, DirectoryError
from distckpt.runtime import portable
from distckpt.storage import obstacles
from distckpt.storage.base import Storage
from distckpt.storage.choose import storage_for

if TYPE_CHECKING:
    from distckpt.directory.catalog import Catalog

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
    shown_paths.remember(path, argument)
    storage = storage_for(path)
    if storage.is_directory(path):
        return storage, path
    refuse_checkpoint(storage, path, argument)
    _refuse_obstacles(storage, path)
    if not storage.is_directory(path):
        hint = nearest(posixpath.basename(path), _folders(storage, posixpath.dirname(path)))
        raise DirectoryError(
            f"{argument} does not exist.{hint or ' Give the directory that a job saves to.'}"
        )
    return storage, path


def refuse_checkpoint(storage: Storage, path: str, argument: str) -> None:
    """Raises DirectoryError if `path` is a checkpoint, or one of its files, not a directory."""
    directory, name = posixpath.split(path)
    shown_paths.remember(directory, posixpath.dirname(argument))
    with contextlib.suppress(OSError):
        if storage.is_directory(path):
            return
        for checkpoint in listings.classify(storage.list(directory)).checkpoints:
            if name == checkpoint or name.startswith(f"{checkpoint}."):
                what = "is a checkpoint" if name == checkpoint else f"is a file of {checkpoint}"
                raise DirectoryError(
                    f"{argument} {what}. This command takes the directory: {directory}"
                )


def is_in_use(storage: Storage, directory: str) -> bool:
    """Returns whether jobs save to `directory`, or have saved there."""
    with contextlib.suppress(OSError):
        names = storage.list(directory)
        found = listings.classify(names).checkpoints.values()
        return layout.PRIVATE_FOLDER in names or any(files.has_manifest for files in found)
    return False


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
    where = directory if argument.rstrip("/") == "." else argument
    if not below:
        return f"There is no checkpoint in {where}."
    paths = ", ".join(layout.join(where.rstrip("/"), name) for name in below[:10])
    more = f" and {len(below) - 10} more" if len(below) > 10 else ""
    return f"There is no checkpoint in {where}, but there are some in {paths}{more}."


def _folders(storage: Storage, directory: str) -> list[str]:
    try:
        names = [name for name in storage.list(directory) if not name.startswith(".")]
        return sorted(n for n in names if storage.is_directory(layout.join(directory, n)))
    except OSError:
        return []


def find_checkpoint(argument: str, *, without_index: bool = False) -> Target:
    """Returns the checkpoint that `argument` means.

    Args:
      argument: A checkpoint's path ("/run/ckpt-12"), its index or manifest
        ("/run/ckpt-12.index", "/run/ckpt-12.manifest.json"), or a directory, which means its newest
        checkpoint.
      without_index: Whether a checkpoint that has lost its index is returned, too.

    Raises:
      ConfigurationError: There is no such checkpoint; the text suggests similar names.
      CheckpointDamagedError: The checkpoint has lost its index.
      RestoreError: The directory's file `checkpoint` names a checkpoint that does not exist.
    """
    path = portable.absolute(argument)
    storage = storage_for(path)
    _refuse_pending_folder(storage, path)
    if storage.is_directory(path):
        shown_paths.remember(path, argument)
        return _newest(storage, path, argument, without_index=without_index)
    target = named(argument)
    _refuse_obstacles(storage, target.directory)
    if not storage.is_directory(target.directory):
        raise DirectoryError(
            f"There is no directory {target.directory}, so there is no checkpoint {argument} "
            "either."
        )
    _check_is_there(target, without_index=without_index)
    return target


def _refuse_pending_folder(storage: Storage, path: str) -> None:
    """Raises ConfigurationError if `path` is the folder of an unfinished save."""
    pending = unfinished.parse_path(path)
    if pending is None or not storage.is_directory(path):
        return
    directory, name = pending
    what = unfinished.describe(storage, directory, name)
    raise ConfigurationError(what or f"{path} is the folder of a save or deletion of {name}.")


def _refuse_obstacles(storage: Storage, directory: str) -> None:
    obstacle = obstacles.find(storage, directory)
    if obstacle is not None:
        raise DirectoryError(obstacle)


def named(argument: str) -> Target:
    """Returns the checkpoint named by its path, index or manifest; it need not exist."""
    path = portable.absolute(argument)
    directory, name = posixpath.split(path)
    shown_paths.remember(directory, posixpath.dirname(argument))
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return Target(storage_for(path), directory, name)


def nearest(name: str, known: list[str]) -> str:
    """Returns a hint with the `known` names similar to `name`, or ""."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _newest(storage: Storage, directory: str, argument: str, *, without_index: bool) -> Target:
    from distckpt.directory.catalog import Catalog
    from distckpt.runtime import host

    catalog = Catalog.for_a_look(storage, directory)
    lost = _newest_without_index(storage, directory, catalog)
    if lost is not None:
        target = Target(storage, directory, lost)
        if without_index:
            return target
        raise CheckpointDamagedError(_lost_index(target))
    names = catalog.candidates(host.now())
    if not names:
        raise ConfigurationError(nothing_in(storage, directory, argument))
    return Target(storage, directory, names[0])


def _newest_without_index(storage: Storage, directory: str, catalog: Catalog) -> str | None:
    """Returns the newest checkpoint if it has no index; None if it has one."""
    from distckpt.inspection import damage

    files = catalog.listing().checkpoints.values()
    if all(one.has_index for one in files if one.has_manifest):
        return None
    found = [
        damage.intact(storage, directory, one.name)
        for one in files
        if one.has_manifest and not damage.is_deleted(one.name, catalog)
    ]
    newest = max((m for m in found if m is not None), key=lambda m: m.order, default=None)
    if newest is None or catalog.listing().checkpoints[newest.name].has_index:
        return None
    return newest.name


def was_deleted(storage: Storage, directory: str, name: str) -> bool:
    """Returns whether plain TensorFlow has deleted a checkpoint, except for its manifest."""
    from distckpt.directory.catalog import Catalog
    from distckpt.inspection import damage

    catalog = Catalog.for_a_look(storage, directory)
    return damage.is_deleted(name, catalog)


def _lost_index(target: Target) -> str:
    return (
        f"{target.path} has lost its index, {layout.index_name(target.name)}. Without it, the "
        "checkpoint cannot be read, and a restore skips it. Copy the index back from a backup."
    )


def _check_is_there(target: Target, *, without_index: bool) -> None:
    storage, directory, name = target
    found = listings.classify(storage.list(directory)).checkpoints
    known = [n for n, files in found.items() if files.has_index]
    if name in known:
        return
    if was_deleted(storage, directory, name):
        raise ConfigurationError(
            f"{target.path} was deleted by TensorFlow's manager; only its manifest is left."
        )
    if without_index and name in found and found[name].has_manifest:
        return
    if name in found:
        raise CheckpointDamagedError(_lost_index(target))
    unsaved = unfinished.describe(storage, directory, name)
    if unsaved:
        raise ConfigurationError(unsaved)
    hint = nearest(name, [*known, *_folders(storage, directory)])
    if not hint and known:
        hint = f" The newest by number is {known[-1]}."
    what = "checkpoint" if known else "checkpoint or directory"
    raise ConfigurationError(f"There is no {what} {name!r} in {directory}.{hint}")
