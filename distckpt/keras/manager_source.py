"""Where a callback gets its manager: from the program, or a new one for a directory."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from distckpt.errors import ConfigurationError
from distckpt.manager.checkpoint_manager import CheckpointManager
from distckpt.options import ManagerOptions
from distckpt.runtime import portable

MAX_TO_KEEP = 3  # by default


class ManagerSource:
    """Gives a callback its manager. The arguments are those of the callback.

    Args:
      directory: Where to save; or the program's manager.
      max_to_keep: For a new manager, like all arguments that follow.
      worker_checkpoint: What only this worker has.
      options: The options.

    Attributes:
      given: The program's manager, or None.

    Raises:
      ConfigurationError: The program gave a manager, and arguments for a new one.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | CheckpointManager,
        max_to_keep: int | None,
        worker_checkpoint: tf.train.Checkpoint | None,
        options: ManagerOptions | None,
    ) -> None:
        self.given = directory if isinstance(directory, CheckpointManager) else None
        self._directory = "" if isinstance(directory, CheckpointManager) else os.fspath(directory)
        self._absolute = portable.absolute(self._directory)
        self._arguments: dict[str, Any] = {
            "max_to_keep": max_to_keep,
            "worker_checkpoint": worker_checkpoint,
            "options": options,
        }
        has_own = max_to_keep != MAX_TO_KEEP or worker_checkpoint or options is not None
        if self.given is not None and has_own:
            raise ConfigurationError(
                "Give max_to_keep, options and worker_checkpoint to the manager, not the callback."
            )

    def make(self, checkpoint: tf.train.Checkpoint, steps: tf.Variable) -> CheckpointManager:
        """Returns a new manager."""
        directory = portable.shown(self._directory, self._absolute)
        return CheckpointManager(checkpoint, directory, step_counter=steps, **self._arguments)
