"""Does `tf.train.CheckpointManager` and ours the same things; sees the same things.

The random histories below are few and short by default. ``DISTCKPT_HISTORIES=5000`` (and
``DISTCKPT_STEPS=60``) makes them many and long; with ``DISTCKPT_SEED=7`` they are other ones.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from unittest import mock

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import distckpt
from distckpt.ownership import process_terms
from distckpt.ownership.held_terms import HeldTerms

from ..kit.tf_differences import TAKES_LAST_STEP, TAKES_LAST_STEP_0

SEED = os.environ.get("DISTCKPT_SEED")
HISTORIES = settings(
    stateful_step_count=int(os.environ.get("DISTCKPT_STEPS", "20")),
    derandomize=SEED is None,
    report_multiple_bugs=False,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
HOUR = 3600.0
FAST = distckpt.ManagerOptions(durable=False)

LAST_STEPS = [None, 0, 2] if TAKES_LAST_STEP_0 else [None, 2]

MANAGER = st.fixed_dictionaries(
    {
        "max_to_keep": st.sampled_from([None, 1, 2, 3]),
        "keep_checkpoint_every_n_hours": st.sampled_from([None, None, 0.5, 1]),
        "checkpoint_interval": st.sampled_from([None, None, 1, 3]),
        "checkpoint_name": st.sampled_from(["ckpt", "ckpt", "ckpt", "model.best"]),
    }
    | ({"last_checkpoint_step": st.sampled_from(LAST_STEPS)} if TAKES_LAST_STEP else {})
)
NUMBER = st.one_of(
    st.integers(0, 6),
    st.integers(0, 6).map(np.int32),
    st.integers(0, 6).map(lambda n: tf.Variable(n, dtype=tf.int64)),
    st.integers(0, 6).map(lambda n: tf.constant(n, tf.int32)),
)


class Side:
    """A training program with one directory, either TensorFlow's way or ours."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.programs = 0
        self.start_program()

    def start_program(self):
        """Begins with other weights than before.

        Nobody could notice that `tf.train.Checkpoint.save` has written the same bytes once more.
        """
        self.programs += 1
        self.weights = tf.Variable([1.0, 2.0, self.programs])
        self.step = tf.Variable(0, dtype=tf.int64)
        self.checkpoint = tf.train.Checkpoint(weights=self.weights, step=self.step)
        self.initialized = 0

    def make_manager(self, factory, **options):
        def init_fn():
            self.initialized += 1

        self.manager = factory(
            self.checkpoint,
            self.directory,
            step_counter=self.step,
            init_fn=init_fn,
            **options,
        )

    def relative(self, path):
        return None if path is None else os.path.relpath(path, self.directory)

    def program(self):
        return {
            "weights": self.weights.numpy().tolist(),
            "step": int(self.step),
            "save_counter": int(self.checkpoint.save_counter),
            "init_fn": self.initialized,
        }


def ours(*args, **kwargs):
    return distckpt.CheckpointManager(*args, options=FAST, **kwargs)


class Histories(RuleBasedStateMachine):
    """Applies the same operations to both sides and compares all that can be seen."""

    def __init__(self, observer):
        super().__init__()
        self.observer = observer
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="distckpt-"))
        self.now = 1_700_000_000.0
        self.operations = 0
        self.patch = mock.patch("time.time", self.clock)
        self.patch.start()
        self.theirs, self.ours = Side(self.root / "theirs"), Side(self.root / "ours")
        self.committed = set()  # saved by us, and by nobody else since
        self.stale = set()  # saved by us; then plain TensorFlow has deleted or replaced it
        self.plain = False  # whether plain TensorFlow manages our directory just now

    def clock(self):
        return self.now

    def teardown(self):
        self.patch.stop()
        shutil.rmtree(self.root)

    def both(self, operation):
        """Applies `operation` to both sides; the results must be equal."""
        self.operations += 1
        self.now += 1e-5 * self.operations  # no two at one instant, even if the clock goes back
        result, expected = operation(self.ours), operation(self.theirs)
        assert result == expected
        return result

    def saved(self, name):
        if name is not None:
            (self.stale if self.plain else self.committed).add(name)
            (self.committed if self.plain else self.stale).discard(name)

    # --- What a program does

    @initialize(options=MANAGER)
    def begin(self, options):
        self.start(options)

    def start(self, options):
        self.theirs.make_manager(tf.train.CheckpointManager, **options)
        self.ours.make_manager(tf.train.CheckpointManager if self.plain else ours, **options)

    @rule(steps=st.integers(1, 4))
    def train(self, steps):
        for side in (self.ours, self.theirs):
            side.step.assign_add(steps)
            side.weights.assign(side.weights * 0.9 + steps)

    @rule(check_interval=st.booleans())
    def save(self, check_interval):
        self.saved(self.both(lambda s: s.relative(s.manager.save(check_interval=check_interval))))

    @rule(number=NUMBER)
    def save_as(self, number):
        self.saved(self.both(lambda s: s.relative(s.manager.save(number))))

    @rule()
    def restore(self):
        self.both(lambda s: s.relative(s.manager.restore_or_initialize()))

    @rule(options=MANAGER, new_program=st.booleans())
    def restart(self, options, new_program):
        if new_program:
            process_terms._terms = HeldTerms()  # as in a new process
            self.both(lambda s: s.start_program())
        self.start(options)

    @rule(seconds=st.sampled_from([0.001, 1.0, 0.4 * HOUR, 0.5 * HOUR, HOUR, 5 * HOUR]))
    def wait(self, seconds):
        self.now += seconds

    # --- What can be seen

    @invariant()
    def the_same_is_seen(self):
        assert self.ours.program() == self.theirs.program()
        assert self.ours.manager.directory == self.ours.directory
        seen = self.observer.everything(self.ours.manager)
        assert seen == self.observer.everything(self.theirs.manager)
        self.nothing_else_is_there(seen["on disk"].keys())

    def nothing_else_is_there(self, existing):
        for name in existing:
            manifest = self.observer.verify(self.ours.directory, name)
            assert (manifest is not None) == (name in self.committed)
        if self.plain:
            self.stale |= self.committed - existing
        self.committed &= existing
        left = self.observer.leftovers(self.ours.directory)
        assert not [file for file in left if not self.is_of_plain_tensorflow(file, existing)]

    def is_of_plain_tensorflow(self, file, existing):
        """Plain TensorFlow forgets our manifest when it deletes, and more when it replaces."""
        name, _, suffix = file.rpartition(".data-" if ".data-" in file else ".manifest.")
        return name in self.stale and (name in existing or suffix == "json")


class AnyClock(Histories):
    """The clock is also set back."""

    @rule(seconds=st.sampled_from([1.0, 0.7 * HOUR, 3 * HOUR]))
    def set_the_clock_back(self, seconds):
        self.now -= seconds


class Mixed(Histories):
    """Our directory is also managed by plain TensorFlow, and by `tf.train.Checkpoint.save`."""

    @rule(options=MANAGER, plain=st.booleans())
    def change_hands(self, options, plain):
        self.plain = plain
        self.start(options)

    @rule(options=MANAGER)
    def save_the_checkpoint(self, options):
        name = self.both(lambda s: s.relative(s.checkpoint.save(f"{s.directory}/ckpt")))
        self.stale.add(name)
        self.committed.discard(name)
        self.start(options)


@pytest.mark.parametrize("machine", [AnyClock, Mixed])
@pytest.mark.parametrize("histories", [30, 60])
def test_every_history_looks_the_same(histories, machine, observer):
    run = lambda: machine(observer)  # noqa: E731
    if SEED is not None:
        run = hypothesis.seed(int(SEED))(run)
    number = int(os.environ.get("DISTCKPT_HISTORIES", histories))
    run_state_machine_as_test(run, settings=settings(HISTORIES, max_examples=number))
