"""`IndexedInput`: examples by index, in an order that any number of workers can go on with."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from distckpt.coordination.choose import default_coordinator
from distckpt.core.order import Order
from distckpt.data.agreement import make_together, next_key
from distckpt.data.indices import Indices
from distckpt.data.replicas import Replicas
from distckpt.data.stepping import Stepping
from distckpt.errors import ConfigurationError
from distckpt.state.rewind import rewind

IndexedDatasetFn = Callable[[tf.data.Dataset, tf.distribute.InputContext], tf.data.Dataset]

_VERSION = 1  # of the state
# What the dataset of indices says of its size: it never ends, but a number lets us see from the
# size of what dataset_fn returns whether it has kept one element for each.
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

    An epoch has every example once, in an order that `seed` and its number decide. Each step takes
    the next `global_batch` of them and gives each replica of the job its contiguous share; sizes
    differ by one at the most. The last step of an epoch has what is left: so fewer, and a replica
    may get none at all (a batch of size 0). All replicas do the same number of steps.

    The state is (epoch, position): what training has consumed, whatever was read ahead. It is the
    same on all workers, and right for any number of them. So it can be part of the checkpoint of
    all, or of ``worker_checkpoint``, and nothing is read twice or left out if the number of workers
    changes in the middle of an epoch. `global_batch` and `epochs` may change, too.

    `next` is used as that of `WorkerInput`. It talks to nobody.

    Attributes:
      elastic: Whether the state of any one worker is right for any number of workers: yes.
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
        """Makes this worker's pipeline. Every worker, at the same point of the program.

        Args:
          size: How many examples there are; they have the indices from 0 to ``size - 1``.
          global_batch: How many of them one step takes, on all replicas of all workers together.
          dataset_fn: Called once with an endless dataset of vectors of indices (int64), one for
            each replica's step, and a `tf.distribute.InputContext`. Returns the dataset of batches
            with exactly these examples, in this order: made by ``map`` and ``prefetch``, with one
            element for each. The state knows nothing of random numbers it draws (`with_epoch`).
          strategy: As for `WorkerInput`.
          seed: Of the order. The same on all workers.
          shuffle: Whether each epoch has another order; else examples come by index.
          epochs: After how many epochs the input ends; default: never.
          drop_remainder: Whether an epoch ends when less than `global_batch` is left of it.
          with_epoch: Whether `dataset_fn` gets pairs (indices, epoch) instead of indices. With the
            epoch in the seeds of ``tf.random.stateless_*``, what is random is the same after a
            restore, too.
          input_context: Which worker this is of how many, for jobs that no strategy connects.
            Nobody checks then that the workers' inputs are alike.
          deadline: Seconds to wait until the other workers have made theirs.

        Raises:
          ConfigurationError: An argument makes no sense, `dataset_fn` returns something else, the
            workers differ, or another worker could not make its own.
          UnsupportedOptionError: The strategy is of another kind.
          DeadlineExceededError: A worker never came here; the text names it.
          WorkerLostError: A worker died; the text names it.
          Exception: What `dataset_fn` raises.
        """
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

        if self._replicas.connected:
            with contextlib.closing(default_coordinator()) as coordinator:
                made = make_together("IndexedInput", make, coordinator, next_key(), deadline)
        else:
            made, _ = make()
        self._dataset, self._iterator = made, iter(made)

    @property
    def element_spec(self) -> Any:
        """The type of what one replica gets, as of a `tf.data.Dataset`."""
        return self._iterator.element_spec[0]

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the next step reads from. Eagerly."""
        return int(self._place[0])

    @property
    def position(self) -> int:
        """How many examples of this epoch have been consumed, by all workers. Eagerly."""
        return int(self._place[1])

    def serialize(self) -> str:
        """Returns the state, for a checkpoint."""
        place = {"epoch": self.epoch, "position": self.position}
        return json.dumps({"version": _VERSION, **self._identity, **place})

    def deserialize(self, string_value: str | bytes) -> None:
        """Goes on where the state of a checkpoint says.

        Raises:
          ConfigurationError: It is of another source, or another order.
        """
        state = json.loads(string_value)
        if state.get("version") != _VERSION:
            raise ConfigurationError(
                f"The state of this IndexedInput has version {state.get('version')!r} in the "
                f"checkpoint; this distckpt knows {_VERSION}. Use the one that wrote it."
            )
        for name, value in self._identity.items():
            if state[name] != value:
                raise ConfigurationError(
                    f"The checkpoint was made with IndexedInput({name}={state[name]!r}), and this "
                    f"one has {name}={value!r}: what was consumed of an epoch would be other "
                    "examples. Make it as it was; or, to begin anew with an epoch, leave it out of "
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
    """Returns a dataset of batches, each with the place to go on at."""
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
            "order, so that it is known what has been read: use .map and .prefetch, and not "
            ".batch, .unbatch, .filter, .repeat, .take or options.deterministic = False."
        )
    return tf.data.Dataset.zip((batches, indices.places())).prefetch(tf.data.AUTOTUNE)


def _plain_variable(value: list[int]) -> tf.Variable:
    """Returns a variable on the CPU, which no strategy mirrors even if its scope is entered.

    A scope is entered by one thread, so another one is outside.
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
    whole = isinstance(epochs, int) and not isinstance(epochs, bool)
    if epochs is not None and (not whole or epochs < 1):
        raise ConfigurationError(f"epochs must be a positive integer or None, got {epochs!r}.")
    return epochs


def _checked_seed(seed: Any) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ConfigurationError(f"seed must be an integer from 0 to 2**63 - 1, got {seed!r}.")
    return seed
