"""`WorkerInput`: each worker's own `tf.data` pipeline, whose exact state a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from distckpt.data.input_iteration import Stepping
from distckpt.data.replicas import Replicas
from distckpt.errors import ConfigurationError

DatasetFn = Callable[[tf.distribute.InputContext], tf.data.Dataset]


class WorkerInput(Stepping, tf.Module):  # type: ignore[misc]
    """Each worker's own input, instead of a strategy's distributed iterator.

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
    args=(next(batches),))``, but not inside the function that ``strategy.run`` runs. A loop ``for
    batch in batches`` works only eagerly.

    A checkpoint holds the plain `tf.data` iterator, including shuffle buffers: after a restore, no
    element is read twice or skipped. The state belongs to this worker, so put it into
    ``worker_checkpoint``. `IndexedInput` can continue with another number of workers.

    All workers must end at the same step. So a dataset must either never end (``.repeat()``), or
    have a known number of elements, the same on all workers and a multiple of the number of this
    worker's replicas. The constructor checks this; `next` does not communicate. Every worker
    constructs the input, at the same point of the program.

    Args:
      dataset_fn: Returns this worker's dataset, in which each batch is for one replica. Called
        once, with a `tf.distribute.InputContext`.
      strategy: The strategy; default: the current one. `MultiWorkerMirroredStrategy`,
        `MirroredStrategy`, `OneDeviceStrategy`, or none.
      deadline: Seconds to wait until the other workers have made their inputs.

    Attributes:
      elastic: Whether the state of any one worker is valid for any number of workers: no.

    Raises:
      ConfigurationError: The datasets could end at different steps, or another worker could
        not make its input.
      UnsupportedOptionError: The strategy is not supported.
      DeadlineExceededError: A worker never came here; the text names it.
      WorkerLostError: A worker died; the text names it.
      Exception: What `dataset_fn` raises.
    """

    elastic = False

    def __init__(
        self,
        dataset_fn: DatasetFn,
        strategy: tf.distribute.Strategy | None = None,
        *,
        deadline: float = 600.0,
    ) -> None:
        super().__init__()
        self._replicas = Replicas.of(strategy, None)

        def make() -> tuple[tf.data.Dataset, dict[str, Any]]:
            dataset = dataset_fn(self._replicas.context)
            return dataset, {"the number of steps": _steps(dataset, self._replicas)}

        dataset = self._replicas.make_together("WorkerInput", make, deadline)
        self._endless = int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY
        self._iterator = iter(dataset)

    @property
    def element_spec(self) -> Any:
        """The type of one replica's elements, as of a `tf.data.Dataset`."""
        return self._iterator.element_spec

    def _get(self) -> Any:
        return self._iterator.get_next()


def _steps(dataset: Any, replicas: Replicas) -> str:
    """Returns how many steps a dataset lasts, as text."""
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
            "dataset_fn's dataset has an unknown number of elements, so a replica could wait "
            "forever for others that have ended. Add .repeat(); or, if the number of elements "
            "is the same on all workers, .apply(tf.data.experimental.assert_cardinality("
            "number))."
        )
    steps, left = divmod(elements, replicas.local)
    if left:
        raise ConfigurationError(
            f"dataset_fn's dataset has {elements} elements, which {replicas.local} replicas cannot "
            "share evenly. Add .repeat(), or remove some with .take() or .skip()."
        )
    return str(steps)
