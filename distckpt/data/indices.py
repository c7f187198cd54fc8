"""The indices of the examples that this worker's replicas read, as a `tf.data.Dataset`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from distckpt.data.replicas import Replicas
from distckpt.data.sample_order import Order, share
from distckpt.data.shuffle import shuffled


class Indices:
    """The indices to read from a place on.

    Args:
      order: How epochs are divided into steps.
      replicas: The replicas whose share to read.
      place: Where each new iteration of the datasets begins: a variable of [epoch, position] on the
        CPU.
      seed: The seed of the order of all epochs; None to read each epoch by index.
      epochs: The number of epochs, or None.
    """

    def __init__(
        self,
        order: Order,
        replicas: Replicas,
        place: tf.Variable,
        seed: int | None,
        epochs: int | None,
    ) -> None:
        self._order, self._replicas, self._place = order, replicas, place
        self._seed, self._epochs = seed, epochs

    def with_epochs(self) -> tf.data.Dataset:
        """Returns an endless dataset of (indices, epoch), one for each replica's step."""
        return self._shares().map(
            lambda epoch, first, count, place: (self._read(epoch, first, count), epoch)
        )

    def places(self) -> tf.data.Dataset:
        """Returns the places to continue from, [epoch, position], after each batch.

        There is one place for each batch within the epochs. Only the last replica's batch of a step
        moves the place; the other batches leave it where the step began.
        """
        shares = self._shares()
        if self._epochs is not None:
            shares = shares.take_while(lambda epoch, first, count, place: epoch < self._epochs)
        return shares.map(lambda epoch, first, count, place: place)

    def _shares(self) -> tf.data.Dataset:
        """Returns an endless dataset of what one replica reads in one step.

        Its elements are (epoch, first, count, place).
        """
        local = self._replicas.local

        def of_replica(state: Any, number: Any) -> Any:
            step = self._order.step(state[0], state[1])
            mine = number % local
            skipped, count = share(step.count, self._replicas.first + mine, self._replicas.total)
            last = tf.stack((step.next_epoch, step.next_position))
            after = tf.where(mine == local - 1, last, state)
            return after, (step.epoch, step.start + skipped, count, after)

        # Inside flat_map, so that the variable is read when the iteration begins.
        return tf.data.Dataset.from_tensors(0).flat_map(
            lambda _: tf.data.Dataset.counter().scan(self._place.read_value(), of_replica)
        )

    def _read(self, epoch: Any, first: Any, count: Any) -> Any:
        positions = tf.range(first, first + count)
        if self._seed is None:
            found = positions
        else:
            found = shuffled(positions, self._order.size, self._seed, epoch)
        each, rest = divmod(self._order.global_batch, self._replicas.total)
        always = self._order.drop_remainder and not rest
        return tf.ensure_shape(found, [each if always else None])
