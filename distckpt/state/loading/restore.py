"""Restores a `tf.train.Checkpoint`; tells a damaged file from a program that does not match."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from distckpt.errors import CheckpointDamagedError
from distckpt.runtime.gc_pause import paused
from distckpt.state.loading import program_match, variable_restore


def restore(
    checkpoint: Any,
    path: str,
    require_match: str = "off",
    *,
    verified: bool = False,
    count: Callable[[int], None] = lambda size: None,
) -> None:
    """Restores `checkpoint` from files with prefix `path`. Every worker, on its training thread.

    First logs which parts of the program's state the files lack.

    Args:
      checkpoint: The `tf.train.Checkpoint`.
      path: The prefix.
      require_match: As ``ManagerOptions.require_match``.
      verified: Whether the files were just found intact, so that values need not all be read before
        the first is assigned.
      count: Called with the size of each value in bytes after it was read, unless TensorFlow
        restores it.

    Raises:
      CheckpointDamagedError: The files cannot be read.
      RestoreError: They have less of the program's state than required. Nothing was changed.
      Exception: From ``checkpoint.restore``, if the state does not match the program, e.g.
        ValueError for a variable of another shape.
    """
    with as_damage(path), paused():  # nothing is trained meanwhile
        found = program_match.check(checkpoint, path, require_match)
        variable_restore.restore(checkpoint, path, found, verified=verified, count=count)


@contextlib.contextmanager
def as_damage(path: str) -> Iterator[None]:
    """Turns TensorFlow's errors about the files of `path` into `CheckpointDamagedError`."""
    try:
        yield
    except (tf.errors.OpError, OSError, IndexError) as error:
        if not _is_damage(error):
            raise
        text = str(error).split("\n")[0]
        raise CheckpointDamagedError(f"{path} cannot be restored: {text}") from error


def _is_damage(error: Exception) -> bool:
    """Tells an error in the files from a mismatch with the program.

    TensorFlow's readers raise the same classes for both; only the texts differ.
    """
    text = str(error)
    if isinstance(error, tf.errors.NotFoundError):
        return "not found in checkpoint" not in text  # a key that only the program has
    if isinstance(error, (tf.errors.DataLossError, tf.errors.OutOfRangeError, OSError)):
        return True
    signs = ("Read less bytes", "sstable", "No such file", "hecksum does not match")
    return any(sign in text for sign in signs)
