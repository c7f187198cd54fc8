"""A file system of TensorFlow's instead of the operating system's: the life of a directory."""

from __future__ import annotations

import itertools
import time

import pytest
import tensorflow as tf

import distckpt
from distckpt.core.pins_and_leases import Pin
from distckpt.directory import pinning
from distckpt.inspection.inventory import take
from distckpt.storage.choose import storage_for

_numbers = itertools.count()


@pytest.fixture
def directory():
    return f"ram://manager-{next(_numbers)}/run"


def make(directory, **options):
    step = tf.Variable(0, dtype=tf.int64)
    table = tf.Variable(tf.zeros((50, 4)))
    checkpoint = tf.train.Checkpoint(step=step, table=table)
    options = distckpt.ManagerOptions(**options)
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 2, step_counter=step, options=options
    )
    return manager, step, table


def train(manager, step, table, steps):
    for _ in range(steps):
        step.assign_add(1)
        table.assign_add(tf.ones_like(table))
        manager.save(metrics={"loss": 1.0 / int(step)})
    manager.sync()


def names(manager):
    return [path.rpartition("/")[2] for path in manager.checkpoints]


@pytest.mark.parametrize("enable_async", [False, True])
def test_saves_prunes_and_restores(directory, enable_async):
    train(*make(directory, enable_async=enable_async), 5)
    manager, step, table = make(directory)
    assert manager.restore_or_initialize() == f"{directory}/ckpt-5"
    assert (int(step), float(table[3, 2])) == (5, 5.0)
    assert names(manager) == ["ckpt-4", "ckpt-5"]
    plain = tf.Variable(0, dtype=tf.int64)
    path = tf.train.latest_checkpoint(directory)
    tf.train.Checkpoint(step=plain).restore(path).expect_partial()
    assert int(plain) == 5
    assert sorted(tf.io.gfile.glob(f"{directory}/ckpt-3*")) == []


def test_keeps_what_a_policy_or_a_pin_holds(directory):
    manager, step, table = make(directory, keep=distckpt.keep.EverySteps(3))
    train(manager, step, table, 2)
    pinning.pin(storage_for(directory), directory, Pin("ckpt-1", "somebody", time.time(), "why"))
    train(manager, step, table, 5)
    there = {item.name for item in take(storage_for(directory), directory, time.time()).items}
    assert there == {"ckpt-1", "ckpt-3", "ckpt-6", "ckpt-7"}


def test_a_reader_reads_and_holds(directory):
    manager, step, table = make(directory)
    train(manager, step, table, 1)
    with distckpt.Reader(directory) as reader:
        assert reader.open() == f"{directory}/ckpt-1"
        train(manager, step, table, 4)
        assert reader.read("table").sum() == 200.0
        assert reader.metrics == {"loss": 1.0}
    found = distckpt.checkpoints_iterator(directory, timeout=1)
    assert next(found) == f"{directory}/ckpt-5"


def test_falls_back_over_damage(directory):
    train(*make(directory), 3)
    (path,) = tf.io.gfile.glob(f"{directory}/ckpt-3.data*")
    with tf.io.gfile.GFile(path, "rb") as file:
        data = bytearray(file.read())
    data[-1] ^= 1
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(bytes(data))
    manager, step, table = make(directory)
    assert manager.restore_or_initialize() == f"{directory}/ckpt-2"
    assert int(step) == 2
    train(manager, step, table, 1)
    assert manager.latest_checkpoint == f"{directory}/ckpt-3"
