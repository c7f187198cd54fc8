from __future__ import annotations

import itertools
import json

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import distckpt
from distckpt.errors import ConfigurationError, UnsupportedOptionError

from .conftest import Job, context, ids


def flat(steps):
    return list(itertools.chain.from_iterable(steps))


def epochs_of(examples, size):
    return [examples[i : i + size] for i in range(0, len(examples), size)]


# --- Every example once ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_epoch_has_every_example_once_in_another_order(job, workers):
    examples = flat(job(23, 5, workers, seed=1).steps(3 * 5))
    epochs = epochs_of(examples, 23)
    assert [sorted(epoch) for epoch in epochs] == [list(range(23))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_does_not_depend_on_the_number_of_workers(job):
    of_one = job(23, 5).steps(12)
    assert job(23, 5, 4).steps(12) == of_one
    assert job(23, 5, 7).steps(12) == of_one  # some get nothing


def test_without_shuffle_examples_come_by_index(job):
    assert job(7, 3, 2, shuffle=False).steps(4) == [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2]]


def test_a_batch_larger_than_the_source_is_an_epoch(job):
    assert job(3, 8, 2, shuffle=False).steps(2) == [[0, 1, 2], [0, 1, 2]]


def test_drop_remainder_leaves_out_the_end_of_an_epoch(job):
    steps = job(10, 4, 2, drop_remainder=True).steps(4)
    assert [len(step) for step in steps] == [4] * 4
    assert len(set(flat(steps[:2]))) == 8


def test_all_workers_end_at_the_same_step(job):
    started = job(7, 3, 4, epochs=2)
    assert [len(list(mine)) for mine in started.inputs] == [6] * 4
    assert all(next(mine, None) is None for mine in started.inputs)
    assert {(mine.epoch, mine.position) for mine in started.inputs} == {(2, 0)}


# --- Going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(2, 2, 2), (3, 2, 4), (1, 3), (4, 1)])
def test_after_a_restore_all_goes_on_as_without(job, tmp_path, numbers):
    """Each job is killed some steps after its save, on another number of workers."""
    uninterrupted = job(23, 5, seed=3).steps(30)
    kept, path = [], None
    for workers in numbers:
        started = job(23, 5, workers, seed=3)
        if path is not None:
            started.restore(path)
        kept += started.steps(7)
        path = started.save(tmp_path)
        started.steps(2)  # in vain
    assert kept == uninterrupted[: len(kept)]


@settings(max_examples=5, deadline=None)
@given(
    st.integers(1, 40),
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(0, 4)), min_size=1, max_size=4
    ),
)
def test_numbers_of_workers_and_batches_may_change_in_any_epoch(tmp_path_factory, size, legs):
    folder = tmp_path_factory.mktemp("legs")
    examples, path = [], None
    for workers, batch, steps in legs:
        started = Job(size, batch, workers, seed=5)
        if path is not None:
            started.restore(path)
        examples += flat(started.steps(steps))
        path = started.save(folder)
    whole = flat(Job(size, size, seed=5).steps(len(examples) // size + 1))
    assert examples == whole[: len(examples)]


def test_what_was_only_read_ahead_is_not_consumed(job, tmp_path):
    def eagerly(indices, context):
        return indices.prefetch(50)

    started = job(23, 5, 2, dataset_fn=eagerly)
    started.steps(2)
    assert [(mine.epoch, mine.position) for mine in started.inputs] == [(0, 10)] * 2
    path = started.save(tmp_path)
    expected = started.steps(9)
    again = job(23, 5, 2, dataset_fn=eagerly)
    again.restore(path)
    assert again.steps(9) == expected


def test_the_same_object_goes_back(job, tmp_path):
    started = job(23, 5, 2)
    started.steps(1)
    path = started.save(tmp_path)
    expected = started.steps(9)
    for _ in range(2):
        started.restore(path)
        assert started.steps(9) == expected


def test_an_input_that_has_ended_goes_back(job, tmp_path):
    started = job(7, 3, epochs=1)
    path = started.save(tmp_path)
    expected = [batch.numpy().tolist() for batch in started.inputs[0]]
    started.restore(path)
    assert [batch.numpy().tolist() for batch in started.inputs[0]] == expected


def test_a_traced_function_goes_on_at_the_restored_place(tmp_path):
    batches = distckpt.IndexedInput(23, 5, ids)
    checkpoint = tf.train.Checkpoint(batches=batches)
    path = checkpoint.write(str(tmp_path / "begin"))
    traced = []

    @tf.function
    def train(steps):
        traced.append(1)
        read = tf.TensorArray(tf.int64, 0, dynamic_size=True, infer_shape=False)
        for step in tf.range(steps):
            read = read.write(step, next(batches))
        return read.concat()

    first = train(tf.constant(8)).numpy().tolist()
    assert (batches.epoch, batches.position) == (1, 15)
    checkpoint.read(path)
    assert (batches.epoch, batches.position) == (0, 0)
    assert train(tf.constant(8)).numpy().tolist() == first
    assert len(traced) == 1


def test_a_restore_may_come_before_the_input_is_tracked(job, tmp_path):
    started = job(23, 5)
    started.steps(3)
    path = started.save(tmp_path)
    checkpoint = tf.train.Checkpoint()
    checkpoint.read(path)
    later = job(23, 5)
    checkpoint.input = later.inputs[0]
    assert later.steps(3) == started.steps(3)


@pytest.mark.parametrize("where", ["checkpoint", "worker_checkpoint"])
def test_a_manager_saves_it_wherever_it_is_tracked(tmp_path, where):
    batches = distckpt.IndexedInput(23, 5, ids)
    tracked = {"checkpoint": tf.train.Checkpoint(), "worker_checkpoint": tf.train.Checkpoint()}
    tracked[where].batches = batches
    manager = distckpt.CheckpointManager(
        tracked["checkpoint"],
        tmp_path,
        3,
        worker_checkpoint=tracked["worker_checkpoint"],
        options=distckpt.ManagerOptions(enable_async=True),
    )
    next(batches)
    manager.save()
    expected = [next(batches).numpy().tolist() for _ in range(6)]
    manager.sync()
    manager.restore_or_initialize()
    assert [next(batches).numpy().tolist() for _ in range(6)] == expected


def test_it_says_that_any_number_of_workers_can_go_on():
    assert distckpt.IndexedInput.elastic is True
    assert distckpt.WorkerInput.elastic is False


def test_random_changes_of_examples_can_depend_on_the_epoch(job, tmp_path):
    def noisy(pairs, context):
        def change(indices, epoch):
            noise = tf.map_fn(
                lambda i: tf.random.stateless_uniform((), tf.stack([i, epoch]), 0, 9, tf.int64),
                indices,
            )
            return 10 * indices + noise

        return pairs.map(change, num_parallel_calls=tf.data.AUTOTUNE)

    started = job(23, 5, 2, dataset_fn=noisy, with_epoch=True)
    path = started.save(tmp_path)
    steps = started.steps(10)
    assert sorted(flat(steps[:5])) != sorted(flat(steps[5:]))
    other = job(23, 5, 3, dataset_fn=noisy, with_epoch=True)
    other.restore(path)
    assert other.steps(10) == steps


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda indices, context: indices.batch(2),
        lambda indices, context: indices.unbatch(),
        lambda indices, context: indices.repeat(2),
        lambda indices, context: indices.take(10),
        lambda indices, context: indices.filter(lambda i: i[0] > 0),
        lambda indices, context: indices.flat_map(tf.data.Dataset.from_tensor_slices),
    ],
)
def test_a_dataset_that_is_not_one_element_for_each_is_refused(job, wrong):
    with pytest.raises(ConfigurationError, match=r"one element for each .* use \.map"):
        job(10, 2, dataset_fn=wrong)


def test_a_dataset_in_any_order_is_refused(job):
    def hasty(indices, context):
        options = tf.data.Options()
        options.deterministic = False
        return indices.with_options(options)

    with pytest.raises(ConfigurationError, match=r"in the same order"):
        job(10, 2, dataset_fn=hasty)


def test_something_else_than_a_dataset_is_refused(job):
    with pytest.raises(ConfigurationError, match=r"must return a tf\.data\.Dataset, got list"):
        job(10, 2, dataset_fn=lambda indices, context: [1])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 0}, "size must be a positive integer, got 0"),
        ({"global_batch": 0}, "global_batch must be a positive integer, got 0"),
        ({"epochs": 0}, "epochs must be a positive integer or None, got 0"),
        ({"epochs": True}, "epochs must be a positive integer or None, got True"),
        ({"seed": -1}, r"seed must be an integer from 0 to 2\*\*63 - 1, got -1"),
        ({"seed": None}, "seed must be an integer"),
        ({"global_batch": 20, "drop_remainder": True}, "10 examples do not fill a batch"),
        ({"input_context": context(2, 2)}, "input_context says worker 2 of 2"),
        ({"input_context": context(0, 2, local=2)}, "has 1 on each worker"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, text):
    given = {"size": 10, "global_batch": 2, "dataset_fn": ids, **arguments}
    with pytest.raises(ConfigurationError, match=text):
        distckpt.IndexedInput(**given)


def test_a_strategy_without_such_replicas_is_refused():
    kind = tf.distribute.experimental.ParameterServerStrategy
    strategy = kind.__new__(kind)  # not connected to anybody
    with pytest.raises(UnsupportedOptionError, match="works under MultiWorkerMirroredStrategy"):
        distckpt.IndexedInput(10, 2, ids, strategy=strategy)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"size": 24}, r"IndexedInput\(size=23\), but this one has size=24"),
        ({"seed": 4}, r"IndexedInput\(seed=3\), but this one has seed=4"),
        ({"shuffle": False}, r"IndexedInput\(shuffle=True\), but this one has shuffle=False"),
    ],
)
def test_the_state_of_another_source_or_order_is_refused(job, tmp_path, other, text):
    path = job(23, 5, seed=3).save(tmp_path)
    with pytest.raises(ConfigurationError, match=text):
        job(**{"size": 23, "batch": 5, "seed": 3, **other}).restore(path)


def test_a_state_of_another_version_is_refused(job):
    (batches,) = job(10, 2).inputs
    state = json.loads(batches.serialize())
    with pytest.raises(ConfigurationError, match="has version 2 in the checkpoint"):
        batches.deserialize(json.dumps({**state, "version": 2}))


def test_a_loop_over_it_in_a_function_is_refused(job):
    (batches,) = job(10, 2).inputs

    @tf.function
    def train():
        for _ in batches:
            pass

    with pytest.raises(Exception, match=r"ConfigurationError: .* for _ in tf\.range\(steps\)"):
        train()
