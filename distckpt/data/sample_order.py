"""The order in which the examples of an indexed source are read, and each replica's share. Pure.

An *epoch* is every example once, in an order that depends only on its number and a seed. A *step*
takes the next `batch` positions of that order, or those that are left, and divides them into
contiguous shares, one for each replica of the job. So a place in the order, (epoch, position),
determines what is left to read, for any number of workers.

The code has no conditions, so that it also works with the tensors of `distckpt.data`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypeVar

from distckpt.arguments import is_integer
from distckpt.errors import ConfigurationError

Number = TypeVar("Number", int, Any)  # an int or an integer tensor


@dataclasses.dataclass(frozen=True)
class Step(Generic[Number]):
    """The positions that one step reads.

    Attributes:
      epoch: Their epoch.
      start: The first position.
      count: The number of positions.
      next_epoch: With `next_position`, where the next step continues.
      next_position: See `next_epoch`.
    """

    epoch: Number
    start: Number
    count: Number
    next_epoch: Number
    next_position: Number


@dataclasses.dataclass(frozen=True)
class Order:
    """How epochs are divided into steps.

    Attributes:
      size: The number of examples, numbered from 0.
      global_batch: The number of examples in a step, on all replicas together.
      drop_remainder: Whether an epoch ends when less than a batch is left; else its last step takes
        that remainder.

    Raises:
      ConfigurationError: A number makes no sense.
    """

    size: int
    global_batch: int
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "global_batch"):
            value = getattr(self, name)
            if not is_integer(value) or not 0 < value < 2**62:
                raise ConfigurationError(f"{name} must be a positive integer, got {value!r}.")
        if self.drop_remainder and self.global_batch > self.size:
            raise ConfigurationError(
                f"With drop_remainder=True, {self.size} examples do not fill a batch of "
                f"{self.global_batch}. Choose a smaller batch, or drop_remainder=False."
            )

    def settle(self, epoch: Number, position: Number) -> tuple[Number, Number]:
        """Returns the place that is read next: after the end of an epoch, the next epoch."""
        over = (position + self._needed - 1) // self.size  # 1 if too few are left, else 0
        return epoch + over, position * (1 - over)

    def step(self, epoch: Number, position: Number) -> Step[Number]:
        """Returns the step at a place."""
        epoch, position = self.settle(epoch, position)
        batch = min(self.global_batch, self.size)
        left = self.size - position
        short = (position + batch - 1) // self.size  # 1 if less than a batch is left, else 0
        count = batch + short * (left - batch)
        return Step(epoch, position, count, *self.settle(epoch, position + count))

    @property
    def _needed(self) -> int:
        """How many examples must be left for another step."""
        return self.global_batch if self.drop_remainder else 1


def share(count: Number, replica: Number, replicas: int) -> tuple[Number, Number]:
    """Returns the beginning and the size of one replica's share of `count` items.

    The shares are contiguous, in the order of the replicas; their sizes differ by at most one.
    """
    first = count * replica // replicas
    return first, count * (replica + 1) // replicas - first
