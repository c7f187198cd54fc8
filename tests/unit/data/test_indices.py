"""Who reads what."""

from __future__ import annotations

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.data.indices import Indices
from distckpt.data.replicas import Replicas
from distckpt.data.sample_order import Order, share


def indices(order, *, worker=0, workers=1, local=1, place=(0, 0), seed=None, epochs=None):
    replicas = Replicas(tf.distribute.get_strategy(), worker, workers, local)
    variable = tf.Variable(place, dtype=tf.int64)
    return Indices(order, replicas, variable, seed, epochs)


def expected(order, place, steps, worker, workers, local):
    """What `Indices` should read, calculated with Python's numbers."""
    read = []
    for _ in range(steps):
        step = order.step(*place)
        after = (step.next_epoch, step.next_position)
        for replica in range(local):
            first, count = share(step.count, worker * local + replica, workers * local)
            positions = list(range(step.start + first, step.start + first + count))
            read.append((positions, step.epoch, after if replica == local - 1 else place))
        place = after
    return read


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.booleans(), st.data())
def test_tensors_are_divided_as_numbers_are(size, batch, drop_remainder, data):
    order = Order(size, batch, drop_remainder and batch <= size)
    workers, local = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    worker = data.draw(st.integers(0, workers - 1))
    place = order.settle(data.draw(st.integers(0, 5)), data.draw(st.integers(0, size)))
    made = indices(order, worker=worker, workers=workers, local=local, place=place)
    both = tf.data.Dataset.zip((made.with_epochs(), made.places())).take(6 * local)
    read = [
        (positions.numpy().tolist(), int(epoch), tuple(after.numpy().tolist()))
        for (positions, epoch), after in both
    ]
    assert read == expected(order, place, 6, worker, workers, local)


def test_there_are_places_as_long_as_there_are_epochs():
    made = indices(Order(10, 4), local=2, place=(1, 4), epochs=3)
    places = [tuple(place.numpy().tolist()) for place in made.places()]
    assert places == [
        (1, 4),
        (1, 8),
        (1, 8),
        (2, 0),
        (2, 0),
        (2, 4),
        (2, 4),
        (2, 8),
        (2, 8),
        (3, 0),
    ]


@pytest.mark.parametrize(
    ("batch", "drop_remainder", "shape"),
    [(8, True, [2]), (8, False, [None]), (6, True, [None])],
)
def test_the_size_of_a_share_is_known_where_it_is_always_the_same(batch, drop_remainder, shape):
    for seed in (None, 1):
        made = indices(Order(20, batch, drop_remainder), workers=2, local=2, seed=seed)
        assert made.with_epochs().element_spec[0].shape.as_list() == shape
