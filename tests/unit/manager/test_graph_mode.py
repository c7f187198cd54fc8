"""Graph mode with sessions, as in TensorFlow 1: saves, numbers and restores as TensorFlow does."""

from __future__ import annotations

import json
import sys

import pytest
import tensorflow as tf

from distckpt.calls.thread_turns import ThreadTurns
from distckpt.errors import UnsupportedOptionError
from distckpt.state.capture import Capture
from distckpt.state.delegated import DelegatedState

from ..kit.python_state import Settings

v1 = tf.compat.v1


class Program:
    def __init__(self, value=0.0):
        self.weights = tf.Variable([value, -value], name="weights")
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.settings = Settings(rate=value)
        self.checkpoint = tf.train.Checkpoint(
            weights=self.weights, step=self.step, settings=self.settings
        )


@pytest.fixture
def session():
    with tf.Graph().as_default(), v1.Session() as session:
        yield session


def test_saving_numbers_and_keeps(either, session, tmp_path):
    program = Program(1.0)
    session.run(v1.global_variables_initializer())
    manager = either(program.checkpoint, tmp_path, 2)
    paths = [manager.save(), manager.save(checkpoint_number=7), manager.save(program.step)]
    assert paths == [f"{tmp_path}/ckpt-{number}" for number in (1, 7, 0)]
    assert manager.save(tf.constant(5)) == f"{tmp_path}/ckpt-5"
    assert session.run(program.checkpoint.save_counter) == 4
    assert manager.checkpoints == [f"{tmp_path}/ckpt-0", f"{tmp_path}/ckpt-5"]
    assert tf.train.latest_checkpoint(tmp_path) == manager.latest_checkpoint


def test_saved_values_are_those_of_the_session_at_that_moment(either, session, observer, tmp_path):
    program = Program(1.0)
    session.run(v1.global_variables_initializer())
    manager = either(program.checkpoint, tmp_path)
    add = program.weights.assign_add([1.0, 1.0]), program.step.assign_add(1)
    for number in range(1, 4):
        session.run(add)
        program.settings.values = {"rate": number}
        manager.save()
    for number in range(1, 4):
        reader = tf.train.load_checkpoint(str(tmp_path / f"ckpt-{number}"))
        assert reader.get_tensor("weights/.ATTRIBUTES/VARIABLE_VALUE").tolist() == [
            1.0 + number,
            number - 1.0,
        ]
        assert reader.get_tensor("save_counter/.ATTRIBUTES/VARIABLE_VALUE") == number
        text = reader.get_tensor("settings/.ATTRIBUTES/py_state")
        assert json.loads(text) == {"rate": number}


def test_the_checkpoint_is_the_one_that_tensorflow_writes(make, observer, tmp_path):
    found = []
    for factory, name in ((make, "ours"), (tf.train.CheckpointManager, "plain")):
        with tf.Graph().as_default(), v1.Session() as session:
            program = Program(2.5)
            session.run(v1.global_variables_initializer())
            manager = factory(program.checkpoint, tmp_path / name, 2)
            for _ in range(3):
                manager.save()
        found.append(observer.on_disk(tmp_path / name))
    assert found[0] == found[1]
    assert observer.leftovers(tmp_path / "ours") == []


def test_restoring_adds_operations_that_the_program_runs(either, tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        program = Program(3.0)
        session.run(v1.global_variables_initializer())
        either(program.checkpoint, tmp_path).save()
    with tf.Graph().as_default(), v1.Session() as session:
        program = Program()
        manager = either(program.checkpoint, tmp_path)
        status = program.checkpoint.restore(manager.latest_checkpoint)
        status.assert_consumed().run_restore_ops()
        assert session.run(program.weights).tolist() == [3.0, -3.0]
        assert program.settings.values == {"rate": 3.0}
        assert manager.save() == f"{tmp_path}/ckpt-2"
    with tf.Graph().as_default(), v1.Session() as session:
        program = Program()
        session.run(v1.global_variables_initializer())
        assert either(program.checkpoint, tmp_path).restore_or_initialize() == f"{tmp_path}/ckpt-2"
        assert session.run(program.weights).tolist() == [0.0, 0.0]  # nothing has been run


def test_init_fn_is_called(either, session, tmp_path):
    program = Program(1.0)
    manager = either(
        program.checkpoint,
        tmp_path,
        init_fn=lambda: session.run(v1.global_variables_initializer()),
    )
    assert manager.restore_or_initialize() is None
    assert session.run(program.weights).tolist() == [1.0, -1.0]


def test_the_interval_is_counted_in_the_session(either, session, tmp_path):
    program = Program()
    session.run(v1.global_variables_initializer())
    manager = either(program.checkpoint, tmp_path, step_counter=program.step, checkpoint_interval=2)
    add = program.step.assign_add(1)
    saved = []
    for _ in range(4):
        saved.append(manager.save() is not None)
        session.run(add)
    assert saved == [True, False, True, False]


def test_a_counter_of_the_session_that_nobody_needs_is_not_missed(either, session, tmp_path):
    program = Program()
    session.run(program.weights.initializer)
    session.run(program.step.initializer)
    manager = either(program.checkpoint, tmp_path, step_counter=tf.Variable(3))  # uninitialised
    assert manager.save() == f"{tmp_path}/ckpt-1"


def test_no_graph_grows_with_the_number_of_saves(make, session, tmp_path):
    program = Program()
    session.run(v1.global_variables_initializer())
    manager = make(program.checkpoint, tmp_path, 1)
    manager.save()
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    for _ in range(3):
        manager.save()
    assert len(graph.get_operations()) == before


def test_without_a_session_nothing_is_written(make, tmp_path):
    with tf.Graph().as_default():
        manager = make(Program().checkpoint, tmp_path / "run")
        with pytest.raises(RuntimeError, match="needs a default session"):
            manager.save()
        counted = make(
            Program().checkpoint,
            tmp_path / "run",
            step_counter=tf.Variable(1),
            checkpoint_interval=1,
        )
        with pytest.raises(RuntimeError, match="needs a default session"):
            counted.save()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("interval", [None, 1])
def test_in_a_function_nothing_is_written_or_restored(make, tmp_path, interval):
    value = tf.Variable(1.0)
    manager = make(
        tf.train.Checkpoint(value=value),
        tmp_path / "run",
        step_counter=tf.Variable(1),
        checkpoint_interval=interval,
    )

    def traced(call):
        with pytest.raises(RuntimeError, match=r"outside of the function, or .* with all updates"):
            tf.function(call)()

    traced(manager.save)
    assert not (tmp_path / "run").exists()
    assert manager.save() == f"{tmp_path}/run/ckpt-1"
    value.assign(2.0)
    traced(manager.save)
    traced(manager.restore_or_initialize)
    traced(lambda: list(tf.data.Dataset.range(1).map(lambda _: manager.save())))
    assert value.numpy() == 2.0
    assert manager.checkpoints == [f"{tmp_path}/run/ckpt-1"]


@pytest.mark.parametrize("method", ["save", "sync", "agree_on", "restore_or_initialize"])
def test_in_a_function_the_code_is_executed_as_written(make, tmp_path, monkeypatch, method):
    """AutoGraph may convert the one line that leads from the public method to the operation."""
    value = tf.Variable(1.0)
    manager = make(tf.train.Checkpoint(value=value), tmp_path)
    monkeypatch.setattr(ThreadTurns, "__enter__", _raise_where_it_is)
    monkeypatch.setattr("distckpt.manager.operations.refuse_in_function", lambda call: None)
    arguments = [1] if method == "agree_on" else []
    with pytest.raises(RuntimeError, match=r"called from .*operations\.py"):
        tf.function(lambda: getattr(manager, method)(*arguments))()


def _raise_where_it_is(turns):
    raise RuntimeError(f"called from {sys._getframe(1).f_code.co_filename}")


def test_by_py_function_it_is_saved_and_restored_at_each_call(make, tmp_path):
    value = tf.Variable(1.0)
    manager = make(tf.train.Checkpoint(value=value), tmp_path)

    # TensorFlow does not know that the Python function reads the variable.
    @tf.function
    def save():
        with tf.control_dependencies([value.assign_add(1.0)]):
            return tf.py_function(manager.save, [], tf.string)

    @tf.function
    def restore():
        with tf.control_dependencies([value.assign_add(1.0)]):
            return tf.py_function(manager.restore_or_initialize, [], tf.string)

    for number in (1, 2):
        assert save().numpy().decode() == f"{tmp_path}/ckpt-{number}"
    assert restore().numpy().decode() == f"{tmp_path}/ckpt-2"
    assert value.numpy() == 3.0


def test_sharding_and_devices_are_left_to_tensorflow(make, session, tmp_path):
    program = Program(1.0)
    session.run(v1.global_variables_initializer())
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(100),
        experimental_io_device="/job:localhost",
    )
    path = make(program.checkpoint, tmp_path).save(options=options)
    reader = tf.train.load_checkpoint(path)
    assert reader.get_tensor("weights/.ATTRIBUTES/VARIABLE_VALUE").tolist() == [1.0, -1.0]


def test_several_workers_cannot_share_a_session(session):
    def take(workers):
        return Capture(Program().checkpoint, workers=workers, index=0, split="all").take()

    with pytest.raises(UnsupportedOptionError, match="graph mode cannot be shared between 2"):
        take(workers=2)
    assert isinstance(take(workers=1)[0], DelegatedState)
