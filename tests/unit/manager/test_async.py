"""Asynchronous saves of one process: what is held, when it counts, and who hears of a failure."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf

from distckpt import errors
from distckpt.core import layout
from distckpt.policies import AtSteps, EverySteps
from distckpt.state.capture import Capture
from distckpt.storage.local import LocalStorage

from .conftest import FAST

ASYNC = dataclasses.replace(FAST, enable_async=True)


class Gate(LocalStorage):
    """Lets nothing be written while it is shut; fails when it is told to."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.fails_at = None

    def write(self, path, data, *, durable):
        assert self.open.wait(60)
        self._check(path)
        super().write(path, data, durable=durable)

    def read(self, path, *args):
        self._check(path)
        return super().read(path, *args)

    def _check(self, path):
        if self.fails_at is not None and path.endswith(self.fails_at):
            raise OSError(28, "No space left on device")


@pytest.fixture
def gate(monkeypatch):
    storage = Gate()
    monkeypatch.setattr("distckpt.manager.storage_for", lambda directory: storage)
    yield storage
    storage.open.set()


@pytest.fixture
def checkpoint():
    return tf.train.Checkpoint(value=tf.Variable(1.0), table=tf.Variable(tf.zeros([50, 7])))


def value(path, key="value"):
    return tf.train.load_checkpoint(path).get_tensor(f"{key}/.ATTRIBUTES/VARIABLE_VALUE")


# --- When it counts


def test_it_returns_its_path_and_counts_once_it_is_committed(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, 2, options=ASYNC)
    manager.save()
    manager.sync()
    gate.open.clear()
    checkpoint.value.assign(2.0)
    assert manager.save() == f"{tmp_path}/ckpt-2"
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1"]
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-1"
    checkpoint.value.assign(3.0)
    gate.open.set()
    manager.sync()
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-2"
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1", f"{tmp_path}/ckpt-2"]
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-2"
    assert value(f"{tmp_path}/ckpt-2") == 2.0


@pytest.mark.parametrize("second", [True, False], ids=["asynchronous", "blocking"])
def test_a_save_waits_for_the_one_in_flight(make, gate, observer, tmp_path, checkpoint, second):
    manager = make(checkpoint, tmp_path, 5)
    gate.open.clear()
    manager.save(options=tf.train.CheckpointOptions(enable_async=True))
    checkpoint.value.assign(2.0)
    threading.Timer(0.3, gate.open.set).start()
    manager.save(options=tf.train.CheckpointOptions(enable_async=second))
    assert f"{tmp_path}/ckpt-1" in manager.checkpoints
    manager.sync()
    assert [value(path) for path in manager.checkpoints] == [1.0, 2.0]
    assert observer.leftovers(tmp_path) == []


def test_restoring_waits_for_the_save_in_flight(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, 5, options=ASYNC)
    gate.open.clear()
    manager.save()
    checkpoint.value.assign(2.0)
    threading.Timer(0.3, gate.open.set).start()
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"
    assert checkpoint.value.numpy() == 1.0


def test_leaving_the_manager_waits(make, gate, tmp_path, checkpoint):
    gate.open.clear()
    with make(checkpoint, tmp_path, options=ASYNC) as manager:
        manager.save()
        threading.Timer(0.3, gate.open.set).start()
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"


def test_leaving_by_an_error_waits_and_raises_that_error(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    with pytest.raises(ZeroDivisionError), manager:
        manager.save() and 1 // 0
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"


def test_many_saves_in_a_row_keep_the_last(make, observer, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, 2, options=ASYNC)
    for number in range(1, 31):
        checkpoint.value.assign(number)
        assert manager.save() == f"{tmp_path}/ckpt-{number}"
    manager.sync()
    assert [value(path) for path in manager.checkpoints] == [29.0, 30.0]
    assert observer.leftovers(tmp_path) == []


@pytest.mark.posix
def test_the_background_leaves_the_cores_to_training(make, tmp_path, checkpoint):
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found = []
    options = tf.train.CheckpointOptions(
        enable_async=True, experimental_write_callbacks=[lambda: found.append(niceness())]
    )
    before = niceness()
    manager = make(checkpoint, tmp_path)
    manager.save(options=options)
    manager.sync()
    assert found == [min(19, before + 10)]
    assert niceness() == before


# --- What is held


def updates():
    """Pairs: a variable, and what changes it; the changes never end."""
    plain = tf.Variable(tf.random.stateless_uniform([200, 100], [1, 2]))
    sparse = tf.Variable(tf.random.stateless_uniform([200, 100], [3, 4]))
    trained = tf.Variable(tf.random.stateless_uniform([100, 100], [5, 6]))
    embedding = tf.Variable(tf.random.stateless_uniform([300, 80], [7, 8]))
    compiled = tf.Variable(tf.random.stateless_uniform([100, 50], [9, 1]))
    whole = tf.Variable(tf.range(5000, dtype=tf.int64))
    text = tf.Variable(["a", "b"])
    sgd = tf.keras.optimizers.SGD(0.1, momentum=0.9)
    dense, slots = tf.keras.optimizers.Adam(0.1), tf.keras.optimizers.Adam(0.1)

    @tf.function
    def train():
        with tf.GradientTape() as tape:
            rows = tf.nn.embedding_lookup(embedding, [1, 5, 5, 9])
            loss = tf.reduce_sum(trained**2) + tf.reduce_sum(rows**2)
        gradients = tape.gradient(loss, [trained, embedding])
        dense.apply_gradients([(gradients[0], trained)])
        slots.apply_gradients([(gradients[1], embedding)])

    @tf.function
    def momentum():
        sgd.apply_gradients([(tf.ones_like(trained), trained)])

    @tf.function(jit_compile=True)
    def compile_it():
        compiled.assign_add(tf.sin(compiled))

    def change():
        plain.assign_add(tf.ones_like(plain))
        plain[3].assign(tf.zeros([100]))
        plain.assign(plain * 1.5)
        sparse.scatter_add(tf.IndexedSlices(tf.ones([2, 100]), [3, 7]))
        sparse.scatter_nd_update([[1, 2], [4, 5]], [7.0, 8.0])
        sparse.batch_scatter_update(
            tf.IndexedSlices(tf.ones([200, 1]), tf.ones([200, 1], tf.int32))
        )
        train()
        momentum()
        compile_it()
        whole.assign_sub(tf.ones_like(whole))
        text.assign([str(time.monotonic()), "c"])

    change()
    variables = {
        "plain": plain,
        "sparse": sparse,
        "trained": trained,
        "embedding": embedding,
        "compiled": compiled,
        "whole": whole,
        "text": text,
        "sgd": sgd,
        "dense": dense,
        "slots": slots,
    }
    return tf.train.Checkpoint(**variables), change


def contents(path):
    reader = tf.train.load_checkpoint(path)
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}


def test_what_is_saved_is_of_the_moment_of_the_save_to_the_bit(make, tmp_path):
    checkpoint, change = updates()
    manager = make(checkpoint, tmp_path / "ours", None, options=ASYNC)
    for number in range(1, 16):
        checkpoint.save_counter.assign(number)
        expected = contents(checkpoint.write(str(tmp_path / "plain" / str(number))))
        checkpoint.save_counter.assign(number - 1)
        path = manager.save()
        change()
        while manager._flight.busy:
            change()
        manager.sync()
        found = contents(path)
        assert found.keys() == expected.keys()
        for key, want in expected.items():
            if not key.startswith("_"):
                np.testing.assert_array_equal(found[key], want, key)


def test_variables_that_are_deleted_or_rebuilt_meanwhile_are_saved(make, gate, tmp_path):
    checkpoint = tf.train.Checkpoint(gone=tf.Variable(1.0), layers=[tf.Variable(2.0)])
    manager = make(checkpoint, tmp_path, options=ASYNC)
    for expected in (1, 2):
        gate.open.clear()
        path = manager.save()
        if expected == 1:
            del checkpoint.gone
            checkpoint.layers = [tf.Variable(20.0), tf.Variable(30.0)]
        gc.collect()
        gate.open.set()
        manager.sync()
        keys = {k.split("/.ATT")[0] for k in contents(path)} - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        if expected == 1:
            assert keys == {"gone", "layers/0", "save_counter"}
            assert (value(path, "gone"), value(path, "layers/0")) == (1.0, 2.0)
        else:
            assert keys == {"layers/0", "layers/1", "save_counter"}
            assert value(path, "layers/0") == 20.0


@pytest.mark.parametrize("where", [layout.PROBE_FILE, "index"])
def test_nothing_is_held_after_a_save_be_it_good_or_bad(make, gate, tmp_path, monkeypatch, where):
    held = []
    take = Capture.take

    def watching(self, *args):
        state, plan = take(self, *args)
        values = [v for (key, _), v in state._values.items() if not key.startswith("_")]
        held.append([weakref.ref(value) for value in values])
        return state, plan

    monkeypatch.setattr(Capture, "take", watching)
    checkpoint = tf.train.Checkpoint(value=tf.Variable(tf.zeros([1000])))
    manager = make(checkpoint, tmp_path, options=ASYNC)
    manager.save()
    manager.sync()
    gate.fails_at = where
    manager.save()
    manager._flight.wait()
    gc.collect()
    assert [len(of_a_save) for of_a_save in held] == [2, 2]
    assert [[ref() for ref in of_a_save if ref() is not None] for of_a_save in held] == [[], []]
    with pytest.raises(errors.DistckptError):
        manager.sync()


# --- Failures


def test_sync_raises_the_error_once_and_the_manager_goes_on(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    gate.fails_at = layout.PROBE_FILE
    assert manager.save() == f"{tmp_path}/ckpt-1"
    with pytest.raises(errors.DistckptError, match="No space left"):
        manager.sync()
    manager.sync()
    assert manager.checkpoints == []
    gate.fails_at = None
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/ckpt-2"]


def test_the_next_save_raises_the_error_and_saves_nothing(make, gate, tmp_path, checkpoint, caplog):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    gate.fails_at = layout.PROBE_FILE
    manager.save()
    manager._flight.wait()
    gate.fails_at = None
    assert "save() of ckpt-1 failed in the background" in caplog.text
    with pytest.raises(errors.DistckptError, match="No space left"):
        manager.save()
    assert manager.checkpoints == []
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/ckpt-2"]


def test_leaving_the_manager_raises_the_error(make, gate, tmp_path, checkpoint):
    gate.fails_at = layout.PROBE_FILE
    with (
        pytest.raises(errors.DistckptError, match="No space"),
        make(checkpoint, tmp_path, options=ASYNC) as manager,
    ):
        manager.save()


def test_an_error_of_a_callback_is_raised_and_the_checkpoint_stands(make, tmp_path, checkpoint):
    options = tf.train.CheckpointOptions(
        enable_async=True, experimental_write_callbacks=[lambda path: 1 // 0]
    )
    manager = make(checkpoint, tmp_path)
    manager.save(options=options)
    with pytest.raises(ZeroDivisionError):
        manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1"]


def test_an_interval_lets_a_failed_step_be_saved_again(make, gate, tmp_path, checkpoint):
    step = tf.Variable(10)
    manager = make(checkpoint, tmp_path, step_counter=step, checkpoint_interval=5, options=ASYNC)
    gate.fails_at = layout.PROBE_FILE
    assert manager.save() is not None
    with pytest.raises(errors.DistckptError):
        manager.sync()
    gate.fails_at = None
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.save() is None


def test_a_second_thread_that_saves_meanwhile_is_refused(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=ASYNC)
    gate.open.clear()
    manager.save()
    flight = manager._flight
    with pytest.raises(errors.ConfigurationError, match="from one thread"):
        flight.start(lambda: None, "save() of ckpt-2")
    gate.open.set()
    manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1"]


# --- What cannot be held


def test_state_that_tensorflow_must_read_itself_is_saved_before_it_returns(
    make, tmp_path, checkpoint, caplog
):
    options = tf.train.CheckpointOptions(
        enable_async=True,
        experimental_sharding_callback=tf.train.experimental.ShardByTaskPolicy(),
    )
    manager = make(checkpoint, tmp_path)
    path = manager.save(options=options)
    assert manager.latest_checkpoint == path
    assert "saved without enable_async" in caplog.text


# --- The end of the program

PROGRAM = """
import multiprocessing, os, sys, threading, time
import tensorflow as tf
import distckpt
from distckpt.storage.local import LocalStorage

class Slow(LocalStorage):
    def write(self, path, data, *, durable):
        time.sleep(0.3)
        if {fails}:
            raise OSError(28, "No space left on device")
        super().write(path, data, durable=durable)

def work():
    import distckpt.manager
    distckpt.manager.storage_for = lambda directory: Slow()
    checkpoint = tf.train.Checkpoint(value=tf.Variable(7.0))
    options = distckpt.ManagerOptions(enable_async=True)
    manager = distckpt.CheckpointManager(checkpoint, {directory!r}, 3, options=options)
    manager.save()
    {end}

if __name__ == "__main__":
    {start}
"""
ENDS = {
    "returns": ("pass", 0),
    "raises": ("1 // 0", 1),
    "exits": ("sys.exit()", 0),
    "exits with 3": ("sys.exit(3)", 3),
}


def run(tmp_path, end, *, fails, start="work()"):
    file = tmp_path / "program.py"
    directory = str(tmp_path / "run")
    text = PROGRAM.format(fails=fails, directory=directory, end=end, start=start)
    file.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("end", list(ENDS))
def test_a_program_finishes_its_save_before_it_ends(tmp_path, end):
    code, status = ENDS[end]
    done = run(tmp_path, code, fails=False)
    assert done.returncode == status, done.stderr
    assert value(tf.train.latest_checkpoint(tmp_path / "run")) == 7.0


@pytest.mark.parametrize("end", list(ENDS))
def test_a_program_whose_last_save_failed_does_not_end_well(tmp_path, end):
    done = run(tmp_path, f"print('said before'); {ENDS[end][0]}", fails=True)
    assert done.returncode not in (0, None)
    assert "save() of ckpt-1 failed in the background" in done.stderr
    assert "No space left on device" in done.stderr
    assert done.stdout == "said before\n"


def test_a_program_that_was_told_of_the_failure_ends_as_it_likes(tmp_path):
    end = "\n    ".join(
        ["try:", "    manager.sync()", "except distckpt.errors.DistckptError:", "    pass"]
    )
    assert run(tmp_path, end, fails=True).returncode == 0


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_child_of_multiprocessing_ends_in_the_same_way(tmp_path, method, fails):
    start = (
        f"child = multiprocessing.get_context({method!r}).Process(target=work); child.start(); "
        "child.join(); sys.exit(child.exitcode)"
    )
    done = run(tmp_path, "pass", fails=fails, start=start)
    assert done.returncode == int(fails), done.stderr
    if not fails:
        assert value(tf.train.latest_checkpoint(tmp_path / "run")) == 7.0


# --- Which calls save


def test_a_save_is_skipped_and_counted_while_one_is_in_flight(make, gate, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path, options=dataclasses.replace(ASYNC, when_busy="skip"))
    gate.open.clear()
    assert manager.save() == f"{tmp_path}/ckpt-1"
    assert manager.save() is None
    assert manager.save() is None
    assert manager.skipped_saves == 2
    gate.open.set()
    manager.sync()
    assert manager.save() == f"{tmp_path}/ckpt-2"
    manager.sync()
    assert manager.skipped_saves == 2


def test_a_policy_decides_which_calls_save(make, tmp_path, checkpoint):
    step = tf.Variable(0)
    options = dataclasses.replace(ASYNC, save_policy=EverySteps(4) | AtSteps([1]))
    manager = make(checkpoint, tmp_path, step_counter=step, options=options)
    saved = []
    for number in range(1, 14):
        step.assign(number)
        if manager.save():
            saved.append(number)
    assert saved == [1, 4, 8, 12]
    assert manager.save() is None
    assert manager.save(check_interval=False) is not None
    manager.sync()
    assert len(manager.checkpoints) == 5


def test_a_restart_goes_on_with_the_policy(make, tmp_path):
    def program():
        step = tf.Variable(0)
        options = dataclasses.replace(ASYNC, save_policy=EverySteps(4))
        manager = make(tf.train.Checkpoint(step=step), tmp_path, step_counter=step, options=options)
        manager.restore_or_initialize()
        return step, manager

    step, manager = program()
    step.assign(6)
    assert manager.save() is not None
    manager.sync()
    step, manager = program()
    assert int(step) == 6
    assert manager.save() is None
    step.assign(8)
    assert manager.save() is not None
    manager.sync()
