"""In which order the examples of an indexed source are read, and who reads which. Pure.

An *epoch* is every example once, in an order that only its number and a seed decide. A *step* takes
the next `batch` positions of that order, or what is left of them, and divides them into contiguous
shares, one for each replica of the job. So a place in the order, (epoch, position), says what is
left to read, for any number of workers.

All is written without conditions, so that it also calculates with tensors, as `distckpt.data` does.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypeVar

from distckpt.errors import ConfigurationError

Number = TypeVar("Number", int, Any)  # an int or an integer tensor


@dataclasses.dataclass(frozen=True)
class Step(Generic[Number]):
    """What one step reads.

    Attributes:
      epoch: Of which epoch.
      start: From which position on.
      count: How many positions.
      next_epoch: With `next_position`, where the next step goes on.
      next_position: See there.
    """

    epoch: Number
    start: Number
    count: Number
    next_epoch: Number
    next_position: Number


@dataclasses.dataclass(frozen=True)
class Order:
    """How epochs are cut into steps.

    Attributes:
      size: How many examples there are, numbered from 0.
      global_batch: How many of them a step takes, on all replicas together.
      drop_remainder: Whether an epoch ends when less than a batch is left; else that is its last
        step.

    Raises:
      ConfigurationError: A number makes no sense.
    """

    size: int
    global_batch: int
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "global_batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**62:
                raise ConfigurationError(f"{name} must be a positive integer, got {value!r}.")
        if self.drop_remainder and self.global_batch > self.size:
            raise ConfigurationError(
                f"With drop_remainder=True no step is left of {self.size} examples in batches of "
                f"{self.global_batch}. Choose a smaller batch, or drop_remainder=False."
            )

    def settle(self, epoch: Number, position: Number) -> tuple[Number, Number]:
        """Returns the same place as what is read next: an epoch that is over is the next one."""
        over = (position + self._needed - 1) // self.size  # 1 if less than that is left, else 0
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
    """Returns where the share of one replica of `count` things begins, and how many these are.

    The shares are contiguous, in the order of the replicas; their sizes differ by one at the most.
    """
    first = count * replica // replicas
    return first, count * (replica + 1) // replicas - first
