"""This process's replicas within the job, and values with a part for each of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from distckpt.coordination.choose import default_coordinator
from distckpt.data.agreement import make_together, next_key
from distckpt.errors import ConfigurationError, UnsupportedOptionError


@dataclasses.dataclass(frozen=True)
class Replicas:
    """This worker's replicas.

    Attributes:
      strategy: The strategy.
      worker: This worker's index.
      workers: The number of workers.
      local: The number of replicas of this worker; the same on all workers.
    """

    strategy: tf.distribute.Strategy
    worker: int
    workers: int
    local: int

    @classmethod
    def of(
        cls, strategy: tf.distribute.Strategy | None, context: tf.distribute.InputContext | None
    ) -> Replicas:
        """Returns the replicas of a strategy; default: the current one.

        Args:
          strategy: The strategy, or None.
          context: The index of this worker and the number of workers, if the strategy does not
            know them.

        Raises:
          UnsupportedOptionError: The strategy is not supported.
          ConfigurationError: `strategy` and `context` contradict each other.
        """
        strategy = strategy or tf.distribute.get_strategy()
        mine = _replicas_here(strategy)
        total, local = strategy.num_replicas_in_sync, len(mine)
        found = cls(strategy, mine[0] // local, total // local, local)
        return found if context is None else found._as(context)

    def _as(self, context: tf.distribute.InputContext) -> Replicas:
        told = (context.input_pipeline_id, context.num_input_pipelines)
        if self.workers > 1 and told != (self.worker, self.workers):
            raise ConfigurationError(
                f"input_context says worker {told[0]} of {told[1]}, but the strategy says worker "
                f"{self.worker} of {self.workers}. Omit input_context."
            )
        if not 0 <= told[0] < told[1] or context.num_replicas_in_sync != told[1] * self.local:
            raise ConfigurationError(
                f"input_context says worker {told[0]} of {told[1]} with "
                f"{context.num_replicas_in_sync} replicas in all, but the strategy has "
                f"{self.local} on each worker."
            )
        return dataclasses.replace(self, worker=told[0], workers=told[1])

    @property
    def connected(self) -> bool:
        """Whether the strategy connects this worker with others."""
        return bool(self.strategy.num_replicas_in_sync > self.local)

    @property
    def total(self) -> int:
        """The number of replicas of all workers."""
        return self.workers * self.local

    @property
    def first(self) -> int:
        """The number of this worker's first replica among all."""
        return self.worker * self.local

    @property
    def context(self) -> tf.distribute.InputContext:
        """The argument of a dataset function."""
        return tf.distribute.InputContext(
            num_input_pipelines=self.workers,
            input_pipeline_id=self.worker,
            num_replicas_in_sync=self.total,
        )

    def make_together(self, kind: str, make: Callable[[], tuple[Any, Any]], deadline: float) -> Any:
        """Makes this worker's input; with other workers, as in `agreement.make_together`."""
        if not self.connected:
            return make()[0]
        with contextlib.closing(default_coordinator()) as coordinator:
            return make_together(kind, make, coordinator, next_key(), deadline)

    def draw(self, get: Callable[[], Any]) -> Any:
        """Calls `get` once for each replica here, in order, and combines the results.

        Works eagerly and while a `tf.function` is traced.

        Returns:
          The structure of `get`'s result, with a `tf.distribute.DistributedValues` for each tensor;
          the tensor itself if the strategy has no such values.

        Raises:
          ConfigurationError: This is called for one replica, within ``strategy.run``.
        """
        if tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context():
            raise ConfigurationError(
                "next(input) is for all replicas of this worker: call it outside the function "
                "that strategy.run runs, as in strategy.run(step, args=(next(input),))."
            )
        values = iter([get() for _ in range(self.local)])
        return self.strategy.experimental_distribute_values_from_function(lambda _: next(values))


def _replicas_here(strategy: tf.distribute.Strategy) -> list[int]:
    """Returns the numbers of this worker's replicas among all."""
    if isinstance(
        strategy,
        (tf.distribute.experimental.ParameterServerStrategy, tf.distribute.TPUStrategy),
    ):
        raise UnsupportedOptionError(
            f"{type(strategy).__name__} cannot use this input. It works under "
            "MultiWorkerMirroredStrategy, MirroredStrategy, OneDeviceStrategy or no strategy."
        )
    numbers: list[int] = []

    def note(context: tf.distribute.experimental.ValueContext) -> int:
        numbers.append(context.replica_id_in_sync_group)
        return 0

    strategy.experimental_distribute_values_from_function(note)
    return numbers
