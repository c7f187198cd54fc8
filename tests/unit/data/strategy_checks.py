"""Inputs under strategies of one process with three devices; run by test_strategies.py.

TensorFlow divides the CPU only before its first use, so these tests need a process of their own.
"""

from __future__ import annotations

import pytest
import tensorflow as tf

import distckpt
from distckpt.errors import ConfigurationError

from .conftest import ids

DEVICES = ["CPU:0", "CPU:1", "CPU:2"]
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
)
STRATEGIES = {
    "three devices": lambda: tf.distribute.MirroredStrategy(DEVICES),
    "a mirror of one": lambda: tf.distribute.MirroredStrategy(DEVICES[:1]),
    "one device": lambda: tf.distribute.OneDeviceStrategy("CPU:1"),
    "none": tf.distribute.get_strategy,
}


@pytest.fixture(params=list(STRATEGIES))
def strategy(request):
    return STRATEGIES[request.param]()


def pairs(context):
    """Pairs of numbers and their squares, in two batches for each of three replicas."""
    dataset = tf.data.Dataset.range(12).map(lambda n: (n, {"square": n * n}))
    return dataset.batch(2, drop_remainder=True)


def parts(strategy, value):
    return [part.numpy().tolist() for part in strategy.experimental_local_results(value)]


def test_each_replica_gets_an_element_in_order(strategy):
    batches = distckpt.WorkerInput(pairs, strategy)
    elements = [[2 * n, 2 * n + 1] for n in range(6)]
    replicas = strategy.num_replicas_in_sync
    for step in range(6 // replicas):
        numbers, squares = next(batches)
        mine = elements[step * replicas : (step + 1) * replicas]
        assert parts(strategy, numbers) == mine
        assert parts(strategy, squares["square"]) == [[n * n for n in part] for part in mine]
    assert next(batches, None) is None


def test_a_custom_loop_in_a_function(strategy, tmp_path):
    """For both inputs: after a restore, the same examples are read as before."""
    own = distckpt.WorkerInput(lambda context: pairs(context).repeat(), strategy)
    indexed = distckpt.IndexedInput(10, 4, ids, strategy=strategy)
    checkpoint = tf.train.Checkpoint(own=own, indexed=indexed)
    path = checkpoint.write(str(tmp_path / "begin"))
    with strategy.scope():
        total = tf.Variable(
            tf.zeros([2], tf.int64), aggregation=tf.VariableAggregation.SUM, trainable=False
        )

    def step(pair, indices):
        numbers, squares = pair
        total.assign_add(tf.stack([tf.reduce_sum(numbers), tf.reduce_sum(indices)]))
        return tf.reduce_sum(squares["square"])

    @tf.function
    def train(steps):
        squares = tf.constant(0, tf.int64)
        for _ in tf.range(steps):
            each = strategy.run(step, args=(next(own), next(indexed)))
            squares += strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)
        return squares

    steps = 6  # two epochs of the indexed input
    results = []
    for _ in range(2):
        total.assign(tf.zeros([2], tf.int64))
        squares = int(train(tf.constant(steps)))
        results.append((squares, total.numpy().tolist()))
        checkpoint.read(path)
    assert results[0] == results[1]
    assert results[0][1][1] == 2 * sum(range(10))
    read = [n % 12 for n in range(2 * steps * strategy.num_replicas_in_sync)]
    assert results[0] == (sum(n * n for n in read), [sum(read), 90])


def test_eager_loops_with_uneven_shares(strategy):
    batches = distckpt.IndexedInput(10, 4, ids, strategy=strategy, epochs=2, shuffle=False)

    @tf.function
    def step(value):
        each = strategy.run(tf.reduce_sum, args=(value,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)

    assert [int(step(value)) for value in batches] == [6, 22, 17] * 2


def test_it_may_be_made_within_the_scope(strategy):
    """Where the strategy's variables would be mirrored; the input's own are not."""
    with strategy.scope():
        batches = distckpt.IndexedInput(9, 9, ids, shuffle=False)
        own = distckpt.WorkerInput(pairs)
        read = parts(strategy, next(batches))
        assert len(parts(strategy, next(own)[0])) == strategy.num_replicas_in_sync
    assert [n for part in read for n in part] == list(range(9))
    assert len(read) == strategy.num_replicas_in_sync


def test_replicas_may_get_nothing(strategy):
    batches = distckpt.IndexedInput(4, 3, ids, strategy=strategy, shuffle=False, epochs=1)
    read = [parts(strategy, value) for value in batches]
    assert [[n for part in step for n in part] for step in read] == [[0, 1, 2], [3]]
    if strategy.num_replicas_in_sync == 3:
        assert sorted(map(len, read[1])) == [0, 0, 1]


def test_shuffled_replicas_may_get_nothing(strategy):
    batches = distckpt.IndexedInput(4, 3, ids, strategy=strategy, epochs=1)
    read = [n for value in batches for part in parts(strategy, value) for n in part]
    assert sorted(read) == [0, 1, 2, 3]


def test_next_within_a_replica_is_refused():
    strategy = STRATEGIES["three devices"]()
    batches = distckpt.IndexedInput(10, 4, ids, strategy=strategy)
    with pytest.raises(Exception, match=r"call it outside the function that strategy\.run runs"):
        strategy.run(lambda: next(batches))


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (tf.data.Dataset.range(7), "has 7 elements, which 3 replicas cannot share evenly"),
        (
            tf.data.Dataset.range(9).filter(lambda n: n > 2),
            r"unknown number of elements.*Add \.repeat\(\)",
        ),
    ],
)
def test_a_dataset_that_could_end_within_a_step_is_refused(dataset, text):
    with pytest.raises(ConfigurationError, match=text):
        distckpt.WorkerInput(lambda context: dataset, STRATEGIES["three devices"]())


def test_a_dataset_whose_size_is_asserted_is_taken():
    def dataset_fn(context):
        dataset = tf.data.Dataset.range(9).filter(lambda n: n > 2)
        return dataset.apply(tf.data.experimental.assert_cardinality(6))

    assert len(list(distckpt.WorkerInput(dataset_fn, STRATEGIES["three devices"]()))) == 2
