"""Restores a `tf.train.Checkpoint`, telling a damaged file from a program that does not fit it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from distckpt.errors import CheckpointDamagedError


def restore(checkpoint: Any, path: str) -> None:
    """Restores `checkpoint` from the files with prefix `path`. Every worker, training thread.

    Raises:
      CheckpointDamagedError: The files cannot be read.
      Exception: What ``checkpoint.restore`` raises when the state does not fit the program, e.g.
        ValueError for a variable of another shape.
    """
    with as_damage(path):
        checkpoint.restore(path)


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
    """Tells an error about the files from one about what the program asks of them.

    TensorFlow's readers raise the same classes for both; only the texts tell.
    """
    text = str(error)
    if isinstance(error, tf.errors.NotFoundError):
        return "not found in checkpoint" not in text  # a key that the program has, and it has not
    if isinstance(error, (tf.errors.DataLossError, tf.errors.OutOfRangeError, OSError)):
        return True
    return any(sign in text for sign in ("Read less bytes", "sstable", "No such file"))
