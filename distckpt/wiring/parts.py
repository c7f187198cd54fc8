"""Makes parts of a manager from what the program has given it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from distckpt import arguments
from distckpt.errors import DirectoryError
from distckpt.options import ManagerOptions
from distckpt.roles.books import Books
from distckpt.roles.pace import Pace
from distckpt.state.numbering import evaluate
from distckpt.state.worker_state import WorkerState
from distckpt.storage.base import Storage


def own_state(checkpoint: Any, options: ManagerOptions) -> WorkerState | None:
    """Returns what takes and restores a ``worker_checkpoint``; None if there is none."""
    if checkpoint is None:
        return None
    arguments.refuse_others("worker_checkpoint", checkpoint, tf.train.Checkpoint)
    return WorkerState(checkpoint, options.worker_state_on_resize)


def pace(steps: Any, interval: int | None, last_step: Any, options: ManagerOptions) -> Pace:
    """Returns what decides which calls of ``save()`` save."""
    read = (lambda: evaluate(steps)) if steps is not None else None
    return Pace(read, interval, options.save_policy, last_step)


def books(
    storage: Storage,
    directory: str,
    max_to_keep: Any,
    keep_every_hours: Any,
    options: ManagerOptions,
) -> Books:
    """Returns the list of the checkpoints in `directory`.

    Raises:
      DirectoryError: The directory exists and cannot be read.
      ConfigurationError: A number is none.
    """
    count, hours = arguments.whole(max_to_keep), arguments.hours(keep_every_hours)
    durable, keep = options.durable, options.keep
    try:
        return Books(storage, directory, count, hours, durable=durable, keep=keep)
    except OSError as error:
        raise DirectoryError(f"{directory} cannot be read: {error}.") from error
