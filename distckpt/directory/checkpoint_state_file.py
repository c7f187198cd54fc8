"""Writes TensorFlow's file `checkpoint`, which lists the managed checkpoints. Chief only."""

from __future__ import annotations

import errno
import logging

from distckpt.core import layout
from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState
from distckpt.errors import CheckpointDamagedError
from distckpt.storage.base import Storage
from distckpt.storage.lenient_reads import content_of

_log = logging.getLogger("distckpt")


def newest_named(storage: Storage, directory: str) -> str | None:
    """Returns the name of the checkpoint that the file names as the newest.

    None if there is no file, or none that TensorFlow can read.

    Raises:
      OSError: The file cannot be read.
    """
    data = content_of(storage, layout.join(directory, layout.POINTER_FILE))
    try:
        return layout.name_of_path(directory, checkpoint_state.parse(data).latest)
    except CheckpointDamagedError:
        return None  # also without a file: nothing names no checkpoint


class CheckpointStateFile:
    """The file `checkpoint` of one directory.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      durable: Whether the file is forced to stable storage.
    """

    def __init__(self, storage: Storage, directory: str, *, durable: bool) -> None:
        self._storage = storage
        self._directory = directory
        self._durable = durable

    def write(self, state: CheckpointState, folder: str) -> bool:
        """Replaces the file, after a commit. Never raises.

        Args:
          state: The new content.
          folder: Path of the attempt's pending folder, from which the file is renamed: a replaced
            chief finds the folder gone, and leaves its successor's file alone.

        Returns:
          Whether the file was written. If not, a warning says so.
        """
        path = layout.join(self._directory, layout.POINTER_FILE)
        staged = layout.join(folder, layout.POINTER_FILE)
        try:
            self._storage.write(staged, checkpoint_state.render(state), durable=self._durable)
            self._check_is_there(folder, staged)
            self._storage.rename(staged, path)
            if self._durable:
                self._storage.flush_directory(self._directory)
        except OSError as error:
            _log.warning(
                "%s is committed, but %s could not be written (%s): plain TensorFlow still finds "
                "the previous checkpoint. Nothing is deleted until it can be written.",
                state.latest,
                path,
                error,
            )
            return False
        return True

    def _check_is_there(self, folder: str, staged: str) -> None:
        """Checks that `staged` has not recreated a folder that a successor has moved away.

        A recreated folder lacks the probe. See `Storage.has_folders`.
        """
        if self._storage.has_folders or layout.PROBE_FILE in self._storage.list(folder):
            return
        self._storage.remove(staged)
        raise FileNotFoundError(errno.ENOENT, "another process has moved it away", folder)
