"""`IndexedInput`: examples by index, in an order that any number of workers can continue."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from distckpt.arguments import is_integer
from distckpt.data.indices import Indices
from distckpt.data.input_iteration import Stepping
from distckpt.data.replicas import Replicas
from distckpt.data.sample_order import Order
from distckpt.errors import ConfigurationError
from distckpt.state.loading.rewind import rewind

IndexedDatasetFn = Callable[[tf.data.Dataset, tf.distribute.InputContext], tf.data.Dataset]

_VERSION = 1  # of the state
# The declared cardinality of the endless dataset of indices. It is finite, so that the cardinality
# of dataset_fn's result shows whether it has one element for each vector.
_MANY = 2**40


class IndexedInput(Stepping, tf.train.experimental.PythonState):  # type: ignore[misc]
    """Input from a source of `size` examples that can be read in any order.

      ```python
      def dataset_fn(indices, context):
          return indices.map(lambda i: (tf.gather(images, i), tf.gather(labels, i)))

      batches = distckpt.IndexedInput(len(images), 256, dataset_fn, strategy=strategy, seed=1)
      checkpoint = tf.train.Checkpoint(model=model, batches=batches)
      strategy.run(step, args=(next(batches),))
      ```

    An epoch has every example once, in an order that depends on `seed` and the epoch's number. Each
    step takes the next `global_batch` of them and gives each replica of the job a contiguous share;
    the sizes of shares differ by at most one. The last step of an epoch has the remaining examples,
    so a replica may get none (a batch of size 0). All replicas do the same number of steps.

    The state is (epoch, position): what training has consumed, without what was read ahead. It is
    the same on all workers, and valid for any number of them. So it can be part of the common
    checkpoint or of ``worker_checkpoint``, and no example is read twice or skipped if the number of
    workers changes in the middle of an epoch. `global_batch` and `epochs` may change, too.

    Use `next` as with `WorkerInput`; `next` does not communicate. Every worker constructs the
    input, at the same point of the program.

    Args:
      size: The number of examples; their indices are 0 to ``size - 1``.
      global_batch: The number of examples in one step, on all replicas of all workers together.
      dataset_fn: Called once with an endless dataset of vectors of indices (int64), one for
        each replica's step, and a `tf.distribute.InputContext`. Returns the dataset of batches
        with exactly these examples, in this order: made by ``map`` and ``prefetch``, with one
        element for each vector. The state does not include random numbers drawn there; see
        `with_epoch`.
      strategy: As for `WorkerInput`.
      seed: The seed of the order; the same on all workers.
      shuffle: Whether each epoch has a different order; otherwise examples come by index.
      epochs: The number of epochs; default: endless.
      drop_remainder: Whether an epoch ends when less than `global_batch` is left of it.
      with_epoch: Whether `dataset_fn` gets pairs (indices, epoch) instead of indices. With the
        epoch in the seeds of ``tf.random.stateless_*``, random values are the same after a
        restore.
      input_context: The index of this worker and the number of workers, for jobs without a
        strategy that connects them. The workers' inputs are then not compared.
      deadline: Seconds to wait until the other workers have made their inputs.

    Attributes:
      elastic: Whether the state of any one worker is valid for any number of workers: yes.

    Raises:
      ConfigurationError: An argument makes no sense, `dataset_fn` returns no such dataset,
        the workers' inputs differ, or another worker could not make its input.
      UnsupportedOptionError: The strategy is not supported.
      DeadlineExceededError: A worker never came here; the text names it.
      WorkerLostError: A worker died; the text names it.
      Exception: What `dataset_fn` raises.
    """

    elastic = True

    def __init__(
        self,
        size: int,
        global_batch: int,
        dataset_fn: IndexedDatasetFn,
        *,
        strategy: tf.distribute.Strategy | None = None,
        seed: int = 0,
        shuffle: bool = True,
        epochs: int | None = None,
        drop_remainder: bool = False,
        with_epoch: bool = False,
        input_context: tf.distribute.InputContext | None = None,
        deadline: float = 600.0,
    ) -> None:
        self._order = Order(size, global_batch, drop_remainder)
        self._identity = {"size": size, "shuffle": shuffle, "seed": _checked_seed(seed)}
        self._endless = epochs is None
        self._replicas = Replicas.of(strategy, input_context)
        self._place = _plain_variable([0, 0])
        indices = Indices(
            self._order,
            self._replicas,
            self._place,
            seed if shuffle else None,
            _checked_epochs(epochs),
        )

        def make() -> tuple[tf.data.Dataset, dict[str, Any]]:
            made = _dataset(indices, with_epoch, dataset_fn, self._replicas.context)
            cut = {"global_batch": global_batch, "drop_remainder": drop_remainder}
            return made, {**self._identity, **cut, "epochs": epochs}

        made = self._replicas.make_together("IndexedInput", make, deadline)
        self._dataset, self._iterator = made, iter(made)

    @property
    def element_spec(self) -> Any:
        """The type of one replica's elements, as of a `tf.data.Dataset`."""
        return self._iterator.element_spec[0]

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the next step reads from. Works only eagerly."""
        return int(self._place[0])

    @property
    def position(self) -> int:
        """How many examples of this epoch all workers have consumed. Works only eagerly."""
        return int(self._place[1])

    def serialize(self) -> str:
        """Returns the state, for a checkpoint."""
        place = {"epoch": self.epoch, "position": self.position}
        return json.dumps({"version": _VERSION, **self._identity, **place})

    def deserialize(self, string_value: str | bytes) -> None:
        """Continues from the state of a checkpoint.

        Raises:
          ConfigurationError: The state is of another source or another order.
        """
        state = json.loads(string_value)
        if state.get("version") != _VERSION:
            raise ConfigurationError(
                f"The state of this IndexedInput has version {state.get('version')!r} in the "
                f"checkpoint; this distckpt reads {_VERSION}. Use the distckpt that wrote it."
            )
        for name, value in self._identity.items():
            if state[name] != value:
                raise ConfigurationError(
                    f"The checkpoint was made with IndexedInput({name}={state[name]!r}), but this "
                    f"one has {name}={value!r}: the consumed part of the epoch would have other "
                    "examples. Use the old value; or, to begin a new epoch, leave the input out of "
                    "the checkpoint that you restore."
                )
        place = self._order.settle(state["epoch"], state["position"])
        self._place.assign(tf.constant(place, tf.int64))
        rewind(self._iterator, self._dataset)

    def _get(self) -> Any:
        batch, place = self._iterator.get_next()
        self._place.assign(place)
        return batch


def _dataset(
    indices: Indices,
    with_epoch: bool,
    dataset_fn: IndexedDatasetFn,
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    """Returns a dataset of batches, each with the place to continue from."""
    given = indices.with_epochs()
    if not with_epoch:
        given = given.map(lambda batch, epoch: batch)
    batches = dataset_fn(given.apply(tf.data.experimental.assert_cardinality(_MANY)), context)
    if not isinstance(batches, tf.data.Dataset):
        raise ConfigurationError(
            f"dataset_fn must return a tf.data.Dataset, got {type(batches).__name__}."
        )
    if int(batches.cardinality()) != _MANY or batches.options().deterministic is False:
        raise ConfigurationError(
            "dataset_fn must return one element for each element that it is given, in the same "
            "order, so that the consumed examples are known: use .map and .prefetch, and not "
            ".batch, .unbatch, .filter, .repeat, .take or options.deterministic = False."
        )
    return tf.data.Dataset.zip((batches, indices.places())).prefetch(tf.data.AUTOTUNE)


def _plain_variable(value: list[int]) -> tf.Variable:
    """Returns a variable on the CPU, which no strategy mirrors even within its scope.

    A scope belongs to one thread, so another thread makes the variable.
    """
    made = []

    def make() -> None:
        with tf.device("CPU:0"):
            made.append(tf.Variable(value, dtype=tf.int64, trainable=False))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def _checked_epochs(epochs: int | None) -> int | None:
    if epochs is not None and (not is_integer(epochs) or epochs < 1):
        raise ConfigurationError(f"epochs must be a positive integer or None, got {epochs!r}.")
    return epochs


def _checked_seed(seed: Any) -> int:
    if not is_integer(seed) or not 0 <= seed < 2**63:
        raise ConfigurationError(f"seed must be an integer from 0 to 2**63 - 1, got {seed!r}.")
    return seed
