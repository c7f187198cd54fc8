"""How a callback with ``restore=False`` joins its directory and a training that others began."""

from __future__ import annotations

import dataclasses
import logging
import math
import weakref
from typing import Any

import tensorflow as tf

from distckpt.core import layout, listings
from distckpt.errors import ConfigurationError
from distckpt.keras.fit import batches_per_call
from distckpt.keras.progress import Place, best_in
from distckpt.manager.checkpoint_manager import CheckpointManager
from distckpt.runtime import portable
from distckpt.storage.choose import storage_for

_log = logging.getLogger("distckpt")


@dataclasses.dataclass
class Fit:
    """What the callbacks of one call of `fit` know about each other.

    Attributes:
      params: The object that Keras gives to all callbacks of the call.
      begun: Where `fit` begins, as the callback that restores found; None if none restores.
      directories: Where the callbacks save.
    """

    params: Any
    begun: Place | None = None
    directories: set[str] = dataclasses.field(default_factory=set)

    def restored(self, begun: Place) -> None:
        """Tells the other callbacks where `fit` begins.

        Raises:
          ConfigurationError: Another callback has restored, too.
        """
        if self.begun is not None:
            raise ConfigurationError(
                "Two CheckpointCallbacks of one fit restore, and the second would undo the first "
                "restore. Give restore=False to all but the one to continue from."
            )
        self.begun = begun

    def saves_to(self, directory: str) -> None:
        """Raises ConfigurationError if another callback saves there, too."""
        if directory in self.directories:
            raise ConfigurationError(
                f"Two CheckpointCallbacks of one fit save to {directory}, and would replace each "
                "other's checkpoints. Give each a directory of its own."
            )
        self.directories.add(directory)


_fits: weakref.WeakKeyDictionary[Any, Fit] = weakref.WeakKeyDictionary()


def fit_of(model: Any, params: Any) -> Fit:
    """Returns the call of `fit` that is running: its callbacks have the same `params` object."""
    found = _fits.get(model)
    if found is None or found.params is not params or not params:
        found = _fits[model] = Fit(params)
    return found


def batches_trained(model: Any) -> int:
    """Returns the number of batches trained, by the model's optimizer."""
    optimizer = getattr(model, "optimizer", None)
    iterations = getattr(optimizer, "iterations", None)
    if iterations is None:
        return 0
    accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    return int(tf.convert_to_tensor(iterations).numpy()) * int(accumulated)


class BatchCount:
    """Corrects the count if another callback raised after a batch, which was then not counted.

    Otherwise, if only one worker missed the batch, it would stay at a different step forever.
    """

    def __init__(self) -> None:
        self._optimizer: Any = None
        self._before = 0  # batches that this optimizer has not counted
        self._is_open = False

    def note(self, model: Any, seen: int) -> None:
        """Notes how many batches have been trained up to now."""
        self._optimizer, self._is_open = model.optimizer, False
        self._before = seen - batches_trained(model)

    def begins(self) -> None:
        """Notes that a batch is about to be trained."""
        self._is_open = True

    def ends(self) -> None:
        """Notes that the batch is counted."""
        self._is_open = False

    def again(self, model: Any, seen: int) -> int:
        """Returns how many batches have been trained, at the beginning of another `fit`.

        Args:
          model: The model.
          seen: How many batches have been counted.
        """
        if self._is_open and model.optimizer is self._optimizer:
            # An optimizer that does several steps in a batch does not count batches.
            missed = batches_trained(model) + self._before - seen
            seen += missed if 0 < missed <= batches_per_call(model) else 0
        self.note(model, seen)
        return seen


def highest_number(directory: str) -> int:
    """Returns the highest number of a checkpoint in a directory, with any name; 0 if none."""
    path = portable.absolute(directory)
    try:
        names = storage_for(path).list(path)
    except NotADirectoryError:
        return 0  # saving will report the error
    found = listings.classify(names).checkpoints
    return max((layout.split_number(name)[1] or 0 for name in found), default=0)


def best_before(manager: CheckpointManager, metric: str) -> float:
    """Returns the best value of a metric in the newest checkpoint that has one; NaN if none has."""
    paths = [p for p in (manager.latest_checkpoint, *reversed(manager.checkpoints)) if p]
    for path in dict.fromkeys(paths):
        try:
            best = best_in(path, metric)
        except tf.errors.OpError as error:
            _log.warning("The best value of the metric cannot be read from %s: %s", path, error)
            continue
        if not math.isnan(best):
            return best
    return math.nan
