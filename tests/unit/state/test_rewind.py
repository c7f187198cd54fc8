"""The private `tf.data` API that `state.rewind` uses does what it is used for."""

from __future__ import annotations

import pytest
import tensorflow as tf

from distckpt.state.loading.rewind import rewind


@pytest.fixture
def start():
    return tf.Variable(0, dtype=tf.int64)


def numbers(start):
    counted = tf.data.Dataset.from_tensors(0).flat_map(
        lambda _: tf.data.Dataset.counter().map(lambda number: number + start.read_value())
    )
    return counted.prefetch(4)


def test_an_iterator_begins_again_and_reads_variables_anew(start):
    dataset = numbers(start)
    iterator = iter(dataset)
    assert [int(next(iterator)) for _ in range(3)] == [0, 1, 2]
    start.assign(50)
    rewind(iterator, dataset)
    assert [int(next(iterator)) for _ in range(3)] == [50, 51, 52]


def test_a_traced_function_reads_on_from_the_new_beginning(start):
    dataset = numbers(start)
    iterator = iter(dataset)
    traced = []

    @tf.function
    def two():
        traced.append(1)
        return iterator.get_next(), iterator.get_next()

    assert [int(n) for n in two()] == [0, 1]
    start.assign(7)
    rewind(iterator, dataset)
    assert [int(n) for n in two()] == [7, 8]
    assert len(traced) == 1


def test_an_iterator_that_has_ended_begins_again():
    dataset = tf.data.Dataset.range(2)
    iterator = iter(dataset)
    assert [int(n) for n in iterator] == [0, 1]
    rewind(iterator, dataset)
    assert [int(n) for n in iterator] == [0, 1]
