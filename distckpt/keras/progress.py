"""How far `fit` has come, as a part of a checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf

from distckpt.errors import ConfigurationError

# The attribute of the manager's `tf.train.Checkpoint`.
ATTRIBUTE = "keras_fit"


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a training.

    Attributes:
      epoch: The epoch, from 0.
      batch: How many batches of it have been trained.
      seen: How many batches have been trained in all.
    """

    epoch: int = 0
    batch: int = 0
    seen: int = 0


class Progress:
    """The variables that hold a `Place` and the best value of a metric.

    Args:
      checkpoint: The manager's `tf.train.Checkpoint`; the variables, the model and its optimizer
        become part of it.
      best: The value that is to be beaten; NaN: any is better.
      others: Holds what other callbacks have noted.

    Raises:
      ConfigurationError: Another callback has put its own there.
    """

    def __init__(self, checkpoint: tf.train.Checkpoint, best: float, others: tf.Variable) -> None:
        if hasattr(checkpoint, ATTRIBUTE):
            raise ConfigurationError(
                f"The manager's checkpoint has an attribute `{ATTRIBUTE}`: another "
                "CheckpointCallback uses this manager. Give each a manager of its own."
            )
        self._best = tf.Variable(best, dtype=tf.float64)
        counters = {name: tf.Variable(0, dtype=tf.int64) for name in ("epoch", "batch", "seen")}
        self._part = tf.train.Checkpoint(best=self._best, callbacks=others, **counters)
        setattr(checkpoint, ATTRIBUTE, self._part)

    def track(self, model: Any) -> None:
        """Makes `model`, its optimizer and its seeds part of the checkpoint, if they are not."""
        for name, value in (("model", model), ("optimizer", model.optimizer)):
            if value is not None and getattr(self._part, name, None) is not value:
                setattr(self._part, name, value)
                self._part.seeds = _seeds(model)

    @property
    def steps(self) -> tf.Variable:
        """The number of batches trained, for the manager's ``step_counter``."""
        return self._part.seen

    @property
    def place(self) -> Place:
        """The place in the variables."""
        part = self._part
        return Place(*(int(value.numpy()) for value in (part.epoch, part.batch, part.seen)))

    @place.setter
    def place(self, place: Place) -> None:
        before = dataclasses.asdict(self.place)
        for name, value in dataclasses.asdict(place).items():
            if value != before[name]:  # an assignment takes longer than a look
                getattr(self._part, name).assign(value)

    @property
    def best(self) -> float:
        """The best value so far; NaN if there is none."""
        return float(self._best.numpy())

    @best.setter
    def best(self, value: float) -> None:
        self._best.assign(value)

    def read_best(self, path: str) -> None:
        """Takes over the best value, and nothing else, from a checkpoint, if that has one."""
        before = self.best
        only = tf.train.Checkpoint(best=self._best)
        tf.train.Checkpoint(**{ATTRIBUTE: only}).restore(path).expect_partial()
        if math.isnan(self.best):
            self.best = before


def _seeds(model: Any) -> list[tf.Variable]:
    """Returns the states of the random generators of Keras 3's layers, e.g. `Dropout`.

    TensorFlow does not find them by itself: in Keras 3 a generator is not trackable.
    """
    paths = ((getattr(v, "path", ""), v) for v in model.non_trainable_variables)
    return [v.value for path, v in paths if path.endswith("seed_generator_state")]
