"""State that is left to TensorFlow's own saver, because only that can read it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from distckpt.core.layout import join
from distckpt.core.protocol.write_plan import Piece
from distckpt.state.base import CapturedState
from distckpt.state.writing.tensorflow_ops import os_errors


class DelegatedState(CapturedState):
    """State that TensorFlow's own saver reads and writes, at the time of `write`.

    Args:
      checkpoint: The checkpoint to save.
      options: As given to ``save()``.
    """

    held = False

    def __init__(self, checkpoint: Any, options: Any) -> None:
        self._checkpoint = checkpoint
        self._options = None
        if options is not None:
            self._options = copy.copy(options)
            self._options.experimental_write_callbacks = None  # the manager calls them
            self._options.enable_async = False  # the manager does that, too
            self._options.experimental_enable_async_checkpoint = False

    def write(self, folder: str, stem: str, pieces: Sequence[Piece]) -> tuple[str, ...]:
        """See the base class."""
        path = join(folder, stem)
        with os_errors(path):
            self._checkpoint.write(path, options=self._options)
        return (stem,)
