"""Restores a `tf.train.Checkpoint`, telling a damaged file from a program that does not fit it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from distckpt.errors import CheckpointDamagedError

_DAMAGE = (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError, OSError)


def restore(checkpoint: Any, path: str) -> None:
    """Restores `checkpoint` from the files with prefix `path`. Every worker, training thread.

    Raises:
      CheckpointDamagedError: The files cannot be read.
      Exception: What ``checkpoint.restore`` raises when the state does not fit the program, e.g.
        ValueError for a variable of another shape.
    """
    try:
        checkpoint.restore(path)
    except _DAMAGE as error:
        text = str(error).split("\n")[0]
        raise CheckpointDamagedError(f"{path} cannot be restored: {text}") from error
