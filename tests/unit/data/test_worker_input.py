"""`WorkerInput` in a program of one worker and one replica; see strategy_checks.py for more."""

from __future__ import annotations

import collections

import pytest
import tensorflow as tf

import distckpt
from distckpt.errors import ConfigurationError


def shuffled(context):
    """Ten epochs of 23 examples, in another order each, in batches across their ends."""
    numbers = tf.data.Dataset.range(23).shuffle(8, seed=5)
    return numbers.repeat(10).batch(4, drop_remainder=True).prefetch(3)


def values(batches):
    return [batch.numpy().tolist() for batch in batches]


def test_the_dataset_function_is_told_who_this_worker_is():
    told = []

    def dataset_fn(context):
        told.append(context)
        return tf.data.Dataset.range(3)

    assert values(distckpt.WorkerInput(dataset_fn)) == [0, 1, 2]
    (context,) = told
    assert (context.input_pipeline_id, context.num_input_pipelines) == (0, 1)
    assert context.num_replicas_in_sync == 1


@pytest.mark.parametrize("steps", [1, 5, 6, 13])
def test_after_a_restore_nothing_comes_twice_and_nothing_is_left_out(tmp_path, steps):
    uninterrupted = values(distckpt.WorkerInput(shuffled))
    batches = distckpt.WorkerInput(shuffled)
    kept, killed_at = [], 0
    while killed_at < len(uninterrupted):
        kept += values(next(batches) for _ in range(min(steps, len(uninterrupted) - len(kept))))
        path = tf.train.Checkpoint(batches=batches).write(str(tmp_path / "state"))
        next(batches, None)  # in vain
        killed_at += steps
        batches = distckpt.WorkerInput(shuffled)
        tf.train.Checkpoint(batches=batches).read(path).assert_consumed()
    assert kept == uninterrupted
    times = collections.Counter(example for batch in kept for example in batch)
    assert set(times) == set(range(23))
    assert sum(times.values()) == 4 * (230 // 4)


def test_a_traced_function_goes_on_at_the_restored_place(tmp_path):
    batches = distckpt.WorkerInput(shuffled)
    checkpoint = tf.train.Checkpoint(batches=batches)
    path = checkpoint.write(str(tmp_path / "begin"))

    @tf.function
    def train(steps):
        read = tf.TensorArray(tf.int64, 0, dynamic_size=True)
        for step in tf.range(steps):
            read = read.write(step, next(batches))
        return read.concat()

    first = train(tf.constant(8)).numpy().tolist()
    checkpoint.read(path)
    assert train(tf.constant(8)).numpy().tolist() == first


def test_a_manager_saves_it_as_the_state_of_the_worker(tmp_path):
    batches = distckpt.WorkerInput(shuffled)
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(), tmp_path, 3, worker_checkpoint=tf.train.Checkpoint(batches=batches)
    )
    next(batches)
    manager.save()
    expected = values(next(batches) for _ in range(6))
    manager.restore_or_initialize()
    assert values(next(batches) for _ in range(6)) == expected


def test_its_element_spec_is_that_of_the_dataset():
    assert distckpt.WorkerInput(shuffled).element_spec == tf.TensorSpec([4], tf.int64)


def test_alone_it_may_end_whenever_it_likes():
    batches = distckpt.WorkerInput(lambda context: tf.data.Dataset.range(5).filter(lambda n: n > 2))
    assert values(batches) == [3, 4]
    assert next(batches, None) is None


def test_to_repeat_nothing_without_end_is_an_error():
    batches = distckpt.WorkerInput(
        lambda context: tf.data.Dataset.range(5).filter(lambda n: n > 9).repeat()
    )
    with pytest.raises(ConfigurationError, match="the dataset that it repeats is empty"):
        next(batches)


def test_something_else_than_a_dataset_is_refused():
    with pytest.raises(ConfigurationError, match=r"must return a tf\.data\.Dataset, got NoneType"):
        distckpt.WorkerInput(lambda context: None)
