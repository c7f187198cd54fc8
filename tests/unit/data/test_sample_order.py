from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.data.sample_order import Order, share
from distckpt.errors import ConfigurationError

SIZES = st.integers(1, 60)
ORDERS = st.builds(Order, SIZES, st.integers(1, 70))


def positions_until(order, epoch, place):
    """The positions of `epoch` that the steps from `place` on read, and the place after them."""
    read = []
    while True:
        step = order.step(*place)
        if step.epoch > epoch:
            return read, (step.epoch, step.start)
        assert step.epoch == epoch
        assert step.count > 0
        read.extend(range(step.start, step.start + step.count))
        place = (step.next_epoch, step.next_position)


# --- Steps ----------------------------------------------------------------------------------------


@given(ORDERS, st.integers(0, 5))
def test_an_epoch_has_every_position_once_and_in_order(order, epoch):
    read, after = positions_until(order, epoch, (epoch, 0))
    assert read == list(range(order.size))
    assert after == (epoch + 1, 0)


@given(ORDERS)
def test_all_steps_of_an_epoch_but_the_last_are_whole(order):
    counts, place = [], (0, 0)
    while place[0] == 0:
        step = order.step(*place)
        counts.append(step.count)
        place = (step.next_epoch, step.next_position)
    assert counts[:-1] == [order.global_batch] * (len(counts) - 1)
    assert counts[-1] <= order.global_batch


@given(SIZES, st.data())
def test_with_drop_remainder_only_whole_steps_are_left(size, data):
    batch = data.draw(st.integers(1, size))
    order = Order(size, batch, drop_remainder=True)
    read, after = positions_until(order, 3, (3, 0))
    assert read == list(range(size - size % batch))
    assert order.step(3, 0).count == batch
    assert after == (4, 0)


@given(SIZES, st.lists(st.tuples(st.integers(1, 70), st.integers(1, 4)), max_size=8))
def test_an_epoch_is_whole_even_if_the_batch_changes_on_the_way(size, legs):
    """Each leg does so many steps with a batch of its own; then comes what is left."""
    read, place = [], (0, 0)
    for batch, steps in legs:
        for _ in range(steps):
            step = Order(size, batch).step(*place)
            read.extend((step.epoch, p) for p in range(step.start, step.start + step.count))
            place = (step.next_epoch, step.next_position)
    epoch = place[0]
    rest, _ = positions_until(Order(size, 7), epoch, place)
    read.extend((epoch, p) for p in rest)
    assert read == [(e, p) for e in range(epoch + 1) for p in range(size)]


@given(ORDERS, st.integers(0, 3), st.data())
def test_a_place_is_settled_when_something_is_left_there(order, epoch, data):
    position = data.draw(st.integers(0, order.size))
    settled = order.settle(epoch, position)
    assert order.settle(*settled) == settled
    assert settled == ((epoch, position) if position < order.size else (epoch + 1, 0))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 1), "size must be a positive integer, got 0"),
        ((2.5, 1), "size must be a positive integer, got 2.5"),
        ((10, -1), "global_batch must be a positive integer, got -1"),
        ((10, True), "global_batch must be a positive integer, got True"),
        ((2**62, 1), "size must be"),
        (
            (10, 11, True),
            "With drop_remainder=True, 10 examples do not fill a batch of 11",
        ),
    ],
)
def test_numbers_that_make_no_sense_are_refused(arguments, text):
    with pytest.raises(ConfigurationError, match=text):
        Order(*arguments)


# --- Shares ---------------------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(1, 40))
def test_the_shares_are_all_of_it_in_the_order_of_the_replicas(count, replicas):
    read = []
    for replica in range(replicas):
        first, length = share(count, replica, replicas)
        read.extend(range(first, first + length))
    assert read == list(range(count))


@given(st.integers(0, 200), st.integers(1, 40))
def test_the_sizes_of_the_shares_differ_by_one_at_the_most(count, replicas):
    sizes = {share(count, replica, replicas)[1] for replica in range(replicas)}
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 200), st.integers(1, 10), st.integers(1, 4))
def test_the_replicas_of_a_worker_have_what_the_worker_would_have_alone(count, workers, local):
    for worker in range(workers):
        mine = [share(count, worker * local + r, workers * local) for r in range(local)]
        first, length = share(count, worker, workers)
        assert mine[0][0] == first
        assert sum(size for _, size in mine) == length
