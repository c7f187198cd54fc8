"""The progress of `fit`, as a part of a checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf

from distckpt.errors import ConfigurationError
from distckpt.keras.best_metric import same
from distckpt.keras.memory import text_variable

# The attribute of the manager's `tf.train.Checkpoint`.
ATTRIBUTE = "keras_fit"


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a training.

    Attributes:
      epoch: The epoch, from 0.
      batch: How many batches of the epoch have been trained.
      seen: How many batches have been trained in all.
    """

    epoch: int = 0
    batch: int = 0
    seen: int = 0


class Progress:
    """The variables that hold a `Place` and the best value of a metric.

    Args:
      checkpoint: The manager's `tf.train.Checkpoint`; the variables, the model and its optimizer
        become part of it, under `ATTRIBUTE`.
      best: The value to improve on; NaN if any value is better.
      metric: Holds the name of the metric.
      others: Holds what other callbacks remember.
      at_top: Whether model and optimizer become part of the checkpoint under their own names, too.

    Raises:
      ConfigurationError: The checkpoint has the variables of another callback.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        best: float,
        metric: tf.Variable,
        others: tf.Variable,
        *,
        at_top: bool,
    ) -> None:
        if hasattr(checkpoint, ATTRIBUTE):
            raise ConfigurationError(
                f"The manager's checkpoint has an attribute `{ATTRIBUTE}`: another "
                "CheckpointCallback uses this manager. Give each a manager of its own."
            )
        self._at_first = best
        self._best = tf.Variable(best, dtype=tf.float64)
        self._metric = metric
        # Not a number: workers may have begun different numbers of fits, after an error on one.
        self._fit = text_variable("0")
        counters = {name: tf.Variable(0, dtype=tf.int64) for name in ("epoch", "batch", "seen")}
        self._part = tf.train.Checkpoint(
            best=self._best, metric=metric, callbacks=others, fit=self._fit, **counters
        )
        setattr(checkpoint, ATTRIBUTE, self._part)
        self._holders = (self._part, checkpoint) if at_top else (self._part,)

    def track(self, model: Any) -> None:
        """Makes `model`, its optimizer and its seeds part of the checkpoint, unless they are."""
        for name, value in (("model", model), ("optimizer", model.optimizer)):
            if value is not None and getattr(self._part, name, None) is not value:
                for holder in self._holders:
                    setattr(holder, name, value)
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
            if value != before[name]:  # an assignment takes longer than reading
                getattr(self._part, name).assign(value)

    @property
    def fit(self) -> int:
        """Which `fit` of its callback made the last save, from 1."""
        return int(self._fit.numpy())

    @fit.setter
    def fit(self, number: int) -> None:
        if number != self.fit:
            self._fit.assign(str(number))

    @property
    def best(self) -> float:
        """The best value so far; NaN if there is none."""
        return float(self._best.numpy())

    @best.setter
    def best(self, value: float) -> None:
        if not same(value, self.best):
            self._best.assign(value)

    def take_over_best(self, value: float) -> None:
        """Sets the best value to the chief's."""
        self.best = value

    def is_of(self, metric: str) -> None:
        """Resets the best value if the restored one is of another metric."""
        if self._metric.numpy().decode() != metric:
            self._metric.assign(metric)
            self.best = self._at_first


def best_in(path: str, metric: str) -> float:
    """Returns the best value of a metric in a checkpoint; NaN if it has none.

    Raises:
      tf.errors.OpError: The checkpoint cannot be read.
    """
    reader = tf.compat.v1.train.NewCheckpointReader(path)  # see `state.program_match`
    found = reader.get_variable_to_shape_map()
    best, name = (f"{ATTRIBUTE}/{part}/.ATTRIBUTES/VARIABLE_VALUE" for part in ("best", "metric"))
    if best not in found or (name in found and reader.get_tensor(name).decode() != metric):
        return math.nan
    return float(reader.get_tensor(best))


def _seeds(model: Any) -> list[tf.Variable]:
    """Returns the states of the random generators of Keras 3's layers, e.g. `Dropout`.

    TensorFlow does not find them by itself: a generator of Keras 3 is not trackable.
    """
    paths = ((getattr(v, "path", ""), v) for v in model.non_trainable_variables)
    return [v.value for path, v in paths if path.endswith("seed_generator_state")]
