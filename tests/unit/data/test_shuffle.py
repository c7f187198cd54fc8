"""The order of an epoch is a permutation, a good shuffle, and never another one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.data.shuffle import shuffled

graph = tf.function(shuffled)  # traced for each size and seed


def beginning(size, seed, epoch, count):
    """The order of the first so many examples of an epoch."""
    positions = tf.range(count, dtype=tf.int64)
    return shuffled(positions, size, seed, tf.constant(epoch, tf.int64)).numpy()


def whole(size, seed, epoch=0):
    """The order of an epoch."""
    return beginning(size, seed, epoch, size)


# Where a shuffle of TensorFlow's own is none, and around that.
TREACHEROUS = [2**16 + 1, 2**18 + 1, 2**16 - 1, 2**16, 2**16 + 2, 2**17 + 1, 2**18]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1000, *TREACHEROUS])
def test_an_epoch_has_every_example_once(size):
    for epoch in (0, 1):
        assert np.array_equal(np.sort(whole(size, 5, epoch)), np.arange(size))


def test_every_small_epoch_has_every_example_once():
    for size in range(1, 200):
        assert np.array_equal(np.sort(whole(size, size, 3)), np.arange(size))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20_000), st.integers(0, 2**63 - 1), st.integers(0, 2**31))
def test_whatever_the_seed_an_epoch_has_every_example_once(size, seed, epoch):
    assert np.array_equal(np.sort(whole(size, seed, epoch)), np.arange(size))


def test_seed_and_epoch_decide_on_the_order():
    places = [(seed, epoch) for seed in (0, 1, 2**8, 2**32, 2**62) for epoch in (0, 1, 2**8, 2**20)]
    orders = [tuple(whole(100, seed, epoch)) for seed, epoch in places]
    assert len(set(orders)) == len(places)
    assert [tuple(whole(100, seed, epoch)) for seed, epoch in places[-2:]] == orders[-2:]


def test_the_order_is_the_one_that_checkpoints_count_on():
    """Another order needs another version of IndexedInput's state."""
    assert whole(12, 3).tolist() == [8, 3, 5, 9, 4, 2, 1, 11, 6, 10, 0, 7]
    assert beginning(2**40, 3, 1, 3).tolist() == [247288490842, 810302114582, 211145005010]
    assert beginning(2**16 + 1, 3, 1, 3).tolist() == [22100, 59994, 57505]


@pytest.mark.parametrize("size", [60_000, 10**6, 10**9])
def test_neighbours_and_epochs_have_nothing_in_common(size):
    """Chi-squared of 15 degrees of freedom: above 50 in one of 100,000 good shuffles."""
    first, again = (beginning(size, 7, epoch, 4096) / size for epoch in (0, 1))
    for differences in (np.diff(first) % 1, (again - first) % 1):
        counts = np.histogram(differences, bins=16, range=(0, 1))[0]
        mean = len(differences) / 16
        assert ((counts - mean) ** 2 / mean).sum() < 50


def test_a_part_is_what_it_is_in_the_whole():
    positions = tf.constant([5, 65536, 0, 65535], tf.int64)
    for size in (2**16 + 1, 10**5):
        part = graph(positions, size, 1, tf.constant(2, tf.int64)).numpy()
        assert part.tolist() == whole(size, 1, 2)[[5, 65536, 0, 65535]].tolist()


def test_nothing_of_it_is_nothing():
    assert graph(tf.constant([], tf.int64), 10, 1, tf.constant(0, tf.int64)).numpy().tolist() == []
