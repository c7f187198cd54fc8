"""`WorkerInput`: each worker's own `tf.data` pipeline, whose exact state a checkpoint holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from distckpt.coordination.choose import default_coordinator
from distckpt.data.agreement import make_together, next_key
from distckpt.data.replicas import Replicas
from distckpt.data.stepping import Stepping
from distckpt.errors import ConfigurationError

DatasetFn = Callable[[tf.distribute.InputContext], tf.data.Dataset]


class WorkerInput(Stepping, tf.Module):  # type: ignore[misc]
    """Input of a worker's own, in place of the iterator that a strategy hands out.

      ```python
      def dataset_fn(context):
          numbers = tf.data.Dataset.range(1000)
          numbers = numbers.shard(context.num_input_pipelines, context.input_pipeline_id)
          return numbers.shuffle(100).repeat().batch(4)

      batches = distckpt.WorkerInput(dataset_fn, strategy)
      own = tf.train.Checkpoint(batches=batches)
      manager = distckpt.CheckpointManager(checkpoint, directory, 3, worker_checkpoint=own)
      strategy.run(step, args=(next(batches),))
      ```

    ``next(batches)`` takes one element of the dataset for each replica of this worker. Call it
    eagerly, or in a `tf.function`: ``for _ in tf.range(n): strategy.run(step,
    args=(next(batches),))``. It is outside of what ``strategy.run`` runs. A loop ``for batch in
    batches`` is for eager programs.

    A checkpoint of it is one of the plain `tf.data` iterator in it: with all that is in shuffle
    buffers, and nothing twice or left out after a restore. It belongs to this worker, so give it as
    ``worker_checkpoint``. `IndexedInput` can go on with another number of workers.

    All workers end at the same step. So a dataset either never ends (``.repeat()``), or its number
    of elements is known, the same on all workers, and a multiple of the number of this worker's
    replicas. This is checked here; `next` talks to nobody.

    Attributes:
      elastic: Whether the state of any one worker is right for any number of workers: no.
    """

    elastic = False

    def __init__(
        self,
        dataset_fn: DatasetFn,
        strategy: tf.distribute.Strategy | None = None,
        *,
        deadline: float = 600.0,
    ) -> None:
        """Makes this worker's pipeline. Every worker, at the same point of the program.

        Args:
          dataset_fn: Returns this worker's dataset of batches for one replica, each. Called once,
            with a `tf.distribute.InputContext`.
          strategy: The strategy; default: the current one. `MultiWorkerMirroredStrategy`,
            `MirroredStrategy`, `OneDeviceStrategy`, or none.
          deadline: Seconds to wait until the other workers have made theirs.

        Raises:
          ConfigurationError: The datasets could end at different steps, or another worker could
            not make its own.
          UnsupportedOptionError: The strategy is of another kind.
          DeadlineExceededError: A worker never came here; the text names it.
          WorkerLostError: A worker died; the text names it.
          Exception: What `dataset_fn` raises.
        """
        super().__init__()
        self._replicas = Replicas.of(strategy, None)

        def make() -> tuple[tf.data.Dataset, dict[str, Any]]:
            dataset = dataset_fn(self._replicas.context)
            return dataset, {"the number of steps": _steps(dataset, self._replicas)}

        if self._replicas.connected:
            with contextlib.closing(default_coordinator()) as coordinator:
                dataset = make_together("WorkerInput", make, coordinator, next_key(), deadline)
        else:
            dataset, _ = make()
        self._endless = int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY
        self._iterator = iter(dataset)

    @property
    def element_spec(self) -> Any:
        """The type of what one replica gets, as of a `tf.data.Dataset`."""
        return self._iterator.element_spec

    def _get(self) -> Any:
        return self._iterator.get_next()


def _steps(dataset: Any, replicas: Replicas) -> str:
    """Returns how many steps a dataset is good for, as text."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ConfigurationError(
            f"dataset_fn must return a tf.data.Dataset, got {type(dataset).__name__}."
        )
    elements = int(dataset.cardinality())
    if elements == tf.data.INFINITE_CARDINALITY:
        return "without end"
    if replicas.total == 1:
        return "any"
    if elements == tf.data.UNKNOWN_CARDINALITY:
        raise ConfigurationError(
            "dataset_fn's dataset may end, and nobody knows when, so that some replica could wait "
            "for ever for others that have ended. Add .repeat(); or, if the number of its elements "
            "is known and the same on all workers, .apply(tf.data.experimental.assert_cardinality("
            "number))."
        )
    steps, left = divmod(elements, replicas.local)
    if left:
        raise ConfigurationError(
            f"dataset_fn's dataset has {elements} elements, which {replicas.local} replicas cannot "
            "share evenly. Add .repeat(), or .take() or .skip() what is too much."
        )
    return str(steps)
