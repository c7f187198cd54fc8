from __future__ import annotations

import collections
import os
from unittest import mock

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.checkpoint import checkpoint_management

from distckpt.core import tf_retention
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState, render
from distckpt.core.tf_retention import Kept, Recovered, Sweep

HOUR = 3600.0
TIMES = st.integers(0, 40).map(lambda quarters: quarters * HOUR / 4)


def kept(*times):
    return tuple(Kept(f"ckpt-{number}", time) for number, time in enumerate(times))


# --- sweep


def test_the_newest_stay_and_the_oldest_go():
    a, b, c = kept(1.0, 2.0, 3.0)
    assert tf_retention.sweep((a, b, c), 2, None, 0.0) == Sweep((b, c), (a,), (), 0.0)


@pytest.mark.parametrize("everything", [None, 0, 3, 4])
def test_nothing_goes_while_there_is_room(everything):
    active = kept(1.0, 2.0, 3.0)
    assert tf_retention.sweep(active, everything, 1.0, 0.0) == Sweep(active, (), (), 0.0)


def test_one_checkpoint_is_preserved_every_so_many_hours():
    active = kept(0.5 * HOUR, 1.0 * HOUR, 1.5 * HOUR, 2.0 * HOUR, 9.0 * HOUR)
    a, b, c, d, e = active
    assert tf_retention.sweep(active, 1, 1.0, 0.0) == Sweep((e,), (a, c), (b, d), 2.0 * HOUR)


def test_rules_compose():
    def spare_the_first(so_far):
        spared = tuple(k for k in so_far.victims if k.name == "ckpt-0")
        rest = tuple(k for k in so_far.victims if k.name != "ckpt-0")
        return Sweep(so_far.active, rest, so_far.preserved + spared, so_far.last_preserved)

    a, b, c = kept(1.0, 2.0, 3.0)
    decisions = Sweep((a, b, c), (), (), 0.0)
    for rule in (
        tf_retention.keep_newest(1),
        spare_the_first,
        tf_retention.spare_every(None),
    ):
        decisions = rule(decisions)
    assert decisions == Sweep((c,), (b,), (a,), 0.0)


@given(
    st.lists(TIMES, max_size=12),
    st.integers(1, 5) | st.none(),
    st.sampled_from([None, 0, 0.25, 1, 1.5, 4]),
    TIMES,
)
def test_sweep_decides_as_tensorflow_does(times, max_to_keep, hours, last_preserved):
    active = kept(*times)
    manager = checkpoint_management.CheckpointManager.__new__(
        checkpoint_management.CheckpointManager
    )
    manager._maybe_delete = collections.OrderedDict(active)
    manager._max_to_keep = max_to_keep
    manager._keep_checkpoint_every_n_hours = hours
    manager._last_preserved_timestamp = last_preserved
    deleted = []
    with mock.patch.object(checkpoint_management, "_delete_file_if_exists", deleted.append):
        manager._sweep()

    ours = tf_retention.sweep(active, max_to_keep, hours, last_preserved)

    assert list(ours.active) == list(manager._maybe_delete.items())
    assert [v.name + ".index" for v in ours.victims] == deleted[::2]
    assert ours.last_preserved == manager._last_preserved_timestamp
    assert sorted(ours.active + ours.victims + ours.preserved) == sorted(active)


# --- record


def test_a_new_checkpoint_is_the_newest():
    assert tf_retention.record(kept(1.0), "ckpt-7", 2.0) == (
        *kept(1.0),
        Kept("ckpt-7", 2.0),
    )


def test_a_name_saved_again_moves_to_the_end():
    a, b, c = kept(1.0, 2.0, 3.0)
    assert tf_retention.record((a, b, c), "ckpt-1", 4.0) == (a, c, Kept("ckpt-1", 4.0))


# --- recover


def test_without_a_file_there_is_nothing_and_the_clock_starts_a_little_earlier():
    assert tf_retention.recover(None, 100.0) == Recovered((), None, 99.0)


def test_a_manager_takes_over_what_the_file_lists():
    state = CheckpointState("b", ("a", "b"), (10.0, 20.0), 5.0)
    assert tf_retention.recover(state, 100.0) == Recovered(
        (Kept("a", 10.0), Kept("b", 20.0)), "b", 5.0
    )


def test_a_clock_that_went_back_is_reported_and_no_time_lies_ahead_of_it():
    state = CheckpointState("b", ("a", "b"), (10.0, 20.0), 15.0)
    recovered = tf_retention.recover(state, 12.0)
    assert recovered == Recovered((), "b", 12.0, clock_went_back=3.0)
    recovered = tf_retention.recover(CheckpointState("b", ("a", "b"), (10.0, 20.0), 5.0), 12.0)
    assert recovered == Recovered((Kept("a", 10.0), Kept("b", 12.0)), "b", 5.0)


def test_checkpoints_without_times_are_not_managed():
    state = CheckpointState("b", ("a", "b"), (), 5.0)
    assert tf_retention.recover(state, 100.0) == Recovered((), "b", 5.0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), TIMES.map(lambda t: t + 1)), min_size=1, max_size=8
    ),
    st.booleans(),
    st.none() | TIMES,
    TIMES,
)
def test_recover_takes_over_what_tensorflow_does(
    tmp_path_factory, rows, timed, last_preserved, now
):
    directory = str(tmp_path_factory.mktemp("run"))
    paths = tuple(path for path, _ in rows)
    times = tuple(time for _, time in rows) if timed else ()
    state = CheckpointState(paths[-1], paths, times, last_preserved)
    with open(os.path.join(directory, "checkpoint"), "wb") as file:
        file.write(render(state))
    with mock.patch.object(checkpoint_management.time, "time", return_value=now):
        manager = tf.train.CheckpointManager(tf.train.Checkpoint(), directory, max_to_keep=3)

    recovered = tf_retention.recover(state, now)

    assert [os.path.join(directory, k.name) for k in recovered.active] == manager.checkpoints
    assert [k.timestamp for k in recovered.active] == list(manager._maybe_delete.values())
    assert os.path.join(directory, recovered.latest) == manager.latest_checkpoint
    assert recovered.last_preserved == manager._last_preserved_timestamp
    assert (recovered.clock_went_back is not None) == (now < (last_preserved or 0.0))
