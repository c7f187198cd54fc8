"""Programs that read input."""

from __future__ import annotations

import time
from typing import Any

import tensorflow as tf

import distckpt


def _text_of(call: Any) -> str:
    """Returns the text of what `call` raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def inputs_that_differ(strategy: Any, index: int) -> dict[str, str]:
    """Inputs that differ between the workers; all workers must refuse each of them in time."""

    def cannot(indices: tf.data.Dataset, context: Any) -> tf.data.Dataset:
        if index == 1:
            raise OSError("no such file")
        return indices

    def own(dataset: tf.data.Dataset, deadline: float = 60.0) -> str:
        return _text_of(
            lambda: distckpt.WorkerInput(lambda _: dataset, strategy, deadline=deadline)
        )

    def indexed(batch: int, dataset_fn: Any) -> str:
        return _text_of(
            lambda: distckpt.IndexedInput(20, batch, dataset_fn, strategy=strategy, deadline=60.0)
        )

    numbers = tf.data.Dataset.range(4 + index)
    texts = {
        "other number": own(numbers),
        "unknown number": own(numbers.filter(lambda number: number > 2)),
        "other batch": indexed(4 + index, lambda indices, _: indices),
        "failing": indexed(4, cannot),
    }
    if index == 1:
        time.sleep(4.0)  # worker 0 has given up
    texts["missing"] = own(numbers.repeat(), deadline=2.0 if index == 0 else 60.0)
    return texts


def inputs_of_uneven_shares(strategy: Any, index: int) -> tuple[list[int], list[list[int]]]:
    """Loops eagerly over shares of 1 and 2 of three examples; returns sums and share sizes."""
    batches = distckpt.IndexedInput(
        13, 3, lambda indices, _: indices, strategy=strategy, shuffle=False, epochs=2
    )

    @tf.function
    def step(value: Any) -> Any:
        def replica(indices: Any) -> Any:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(indices))

        return strategy.experimental_local_results(strategy.run(replica, args=(value,)))[0]

    sums, sizes = [], []
    for value in batches:
        sums.append(int(step(value)))
        sizes.append([len(part) for part in strategy.experimental_local_results(value)])
    return sums, sizes
