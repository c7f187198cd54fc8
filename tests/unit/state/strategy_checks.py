"""Variables made under strategies of one process with two devices; run in a process of their own.

test_keras_2_and_strategies.py starts it: TensorFlow divides the CPU only before its first use.
"""

from __future__ import annotations

import dataclasses

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf

from distckpt.state import variable_reads
from distckpt.state.capture import Capture, TensorState
from distckpt.state.loading.program_match import match
from distckpt.state.search.tensor_search import Survey

from ..manager.conftest import FAST
from .conftest import bits, program, take
from .serialized import compare

CPUS = ["CPU:0", "CPU:1"]

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


STRATEGIES = {
    "mirrored": lambda: tf.distribute.MirroredStrategy(CPUS),
    "one device": lambda: tf.distribute.OneDeviceStrategy("CPU:1"),
    "central storage": lambda: tf.distribute.experimental.CentralStorageStrategy(CPUS, "CPU:0"),
    "none": tf.distribute.get_strategy,
}


@pytest.fixture(params=list(STRATEGIES))
def strategy(request):
    return STRATEGIES[request.param]()


class Program:
    """Variables of every synchronization and aggregation, after a step on each replica."""

    def __init__(self, strategy, number):
        self.strategy = strategy
        with strategy.scope():
            self.weights = tf.Variable(tf.fill([50, 3], float(number)))
            self.step = tf.Variable(
                0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
            self.sum = self.on_read(tf.VariableAggregation.SUM, number)
            self.mean = self.on_read(tf.VariableAggregation.MEAN, number)
            self.first = self.on_read(tf.VariableAggregation.ONLY_FIRST_REPLICA, number)
        self.outside = tf.Variable([number])
        with tf.device("CPU:1"):
            self.elsewhere = tf.Variable([number, number])
        strategy.run(self.train)
        self.checkpoint = tf.train.Checkpoint(
            weights=self.weights,
            step=self.step,
            sum=self.sum,
            mean=self.mean,
            first=self.first,
            outside=self.outside,
            elsewhere=self.elsewhere,
        )

    @staticmethod
    def on_read(aggregation, number):
        return tf.Variable(
            float(number),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=aggregation,
        )

    def train(self):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        self.sum.assign_add(tf.cast(replica + 1, tf.float32))
        self.mean.assign_add(tf.cast(replica + 5, tf.float32))
        self.first.assign_add(tf.cast(replica + 7, tf.float32))
        self.step.assign_add(1)

    def read(self):
        distributed = [self.weights, self.step, self.sum, self.mean, self.first]
        local = [self.strategy.experimental_local_results(v) for v in (self.weights, self.step)]
        return [bits(v.read_value()) for v in (*distributed, self.outside, self.elsewhere)] + [
            [bits(value) for value in values] for values in local
        ]


def test_variables_of_strategies(round_trips, strategy):
    round_trips.run(lambda number: Program(strategy, number))


class KerasProgram:
    """Variables of Keras 3 that consist of distributed ones, after a step on each replica."""

    def __init__(self, strategy, number):
        on_write, on_read = tf.VariableSynchronization.ON_WRITE, tf.VariableSynchronization.ON_READ
        no, first = tf.VariableAggregation.NONE, tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.strategy = strategy
        with strategy.scope():
            self.inner = [
                tf.Variable(tf.fill([50, 3], float(number))),
                tf.Variable(float(number), synchronization=on_write, aggregation=no),
                tf.Variable(float(number), aggregation=first),
                tf.Variable(
                    float(number),
                    trainable=False,
                    synchronization=on_read,
                    aggregation=tf.VariableAggregation.SUM,
                ),
            ]
            self.variables = [keras_3.Variable(tf.zeros(inner.shape)) for inner in self.inner]
        for variable, inner in zip(self.variables, self.inner, strict=True):
            variable._value = inner
        self.train()
        self.checkpoint = tf.train.Checkpoint(it=self.variables)

    def train(self):
        self.strategy.run(self.train_replica)
        self.inner[0].assign_add(tf.ones([50, 3]))
        self.inner[2].assign_add(2.0)

    def train_replica(self):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        self.inner[3].assign_add(tf.cast(replica + 1, tf.float32))

    def read(self):
        return [bits(variable.read_value()) for variable in self.inner]


def test_variables_of_keras_3_with_those_of_strategies(round_trips, strategy):
    round_trips.run(lambda number: KerasProgram(strategy, number))


def test_what_is_found_of_keras_3_is_what_tensorflow_finds(strategy):
    found = KerasProgram(strategy, 1)
    for split in ("all", "distributed"):
        assert not compare(found.checkpoint, split=split)


def test_variables_of_keras_3_are_read_like_those_that_they_consist_of(strategy):
    found = KerasProgram(strategy, 1)
    capture = Capture(found.checkpoint, workers=1, index=0, split="all")
    for _ in range(3):
        state, _ = capture.take()
        state.read_together()
        before = found.read()
        held = {key: bits(value) for (key, _), value in state._values.items()}
        found.train()
        assert [held[f"it/{n}/.ATTRIBUTES/VARIABLE_VALUE"] for n in range(4)] == before
        assert before[0] != found.read()[0]
    survey = Survey(found.checkpoint, "all")
    assert survey._asked == []
    on_read = isinstance(found.inner[3], tf.distribute.DistributedValues)
    assert (len(survey.variables), len(survey.together)) == (4 - on_read, on_read)


def test_what_is_found_of_strategies_is_what_tensorflow_finds(strategy):
    found = Program(strategy, 1)
    for split in ("all", "distributed"):
        assert not compare(found.checkpoint, split=split)
        with strategy.scope():
            assert not compare(found.checkpoint, split=split)


def test_saving_and_restoring_within_the_scope(make, observer, tmp_path, strategy):
    original, copy = Program(strategy, 1), Program(strategy, 2)
    with strategy.scope():
        manager = make(original.checkpoint, tmp_path, 1)
        manager.save()
        assert manager.save() == f"{tmp_path}/ckpt-2"
        assert make(copy.checkpoint, tmp_path).restore_or_initialize() == f"{tmp_path}/ckpt-2"
    assert copy.read() == original.read()
    assert observer.leftovers(tmp_path) == []


@pytest.mark.parametrize("other", [name for name in STRATEGIES if name != "mirrored"])
def test_a_checkpoint_goes_from_one_strategy_to_another(make, tmp_path, other):
    original = Program(STRATEGIES["mirrored"](), 1)
    make(original.checkpoint, tmp_path / "one").save()
    copy = Program(STRATEGIES[other](), 2)
    make(copy.checkpoint, tmp_path / "one").restore_or_initialize()
    assert copy.read()[:7] == original.read()[:7]
    make(copy.checkpoint, tmp_path / "two").save()
    back = Program(STRATEGIES["mirrored"](), 3)
    make(back.checkpoint, tmp_path / "two").restore_or_initialize()
    assert back.read()[:7] == original.read()[:7]


def test_a_step_counter_of_every_replica_serves(make, tmp_path, strategy):
    program = Program(strategy, 1)
    manager = make(
        program.checkpoint, tmp_path, 2, step_counter=program.step, checkpoint_interval=2
    )
    assert manager.save(program.step) == f"{tmp_path}/ckpt-1"
    strategy.run(program.train)
    assert manager.save(program.step) is None
    strategy.run(program.train)
    assert manager.save(program.step) == f"{tmp_path}/ckpt-3"


def test_what_is_equal_on_all_workers_is_known(strategy):
    program = Program(strategy, 1)
    state, plan = take(program.checkpoint, workers=2, split="distributed")
    assert isinstance(state, TensorState)
    shared = {e.key.split("/")[0] for e in plan.entries if not e.chief_only}
    made_under = {"weights", "sum", "mean"}  # of "step" and "first" each has the first replica's
    distributed = isinstance(program.weights, tf.distribute.DistributedValues)
    assert shared == (made_under if distributed else set())


def test_a_program_is_compared_with_a_checkpoint(make, tmp_path, strategy):
    original = Program(strategy, 1)
    path = make(original.checkpoint, tmp_path).save()
    found = match(Program(strategy, 2).checkpoint, path)
    assert (found.count, found.missing, found.unused) == (7, (), ())
    renamed = match(tf.train.Checkpoint(other=original.sum), path)
    assert (renamed.missing, renamed.nothing) == (("other",), True)


def test_what_is_saved_in_the_background_is_of_the_moment_of_the_save(make, tmp_path, strategy):
    program = Program(strategy, 1)
    options = dataclasses.replace(FAST, enable_async=True)
    manager = make(program.checkpoint, tmp_path, options=options)
    for _ in range(10):
        expected = program.read()
        path = manager.save()
        for _ in range(3):
            strategy.run(program.train)
            program.weights.assign_add(tf.ones([50, 3]))
            program.outside.assign_add([5])
            program.elsewhere.scatter_update(tf.IndexedSlices([7], [1]))
        later = program.read()
        manager.sync()
        program.checkpoint.restore(path)
        # A sum over replicas is restored as one of them and zeroes.
        assert program.read()[:2] == expected[:2] != later[:2]
        assert program.read()[4:6] == expected[4:6] != later[4:6]


def test_values_on_an_accelerator_are_copied_to_the_host_if_they_are_the_own(monkeypatch):
    """Here the second part of the CPU replaces it, so that the copies are real."""
    monkeypatch.setattr(variable_reads, "is_host", lambda device: device.endswith("CPU:0"))
    with tf.device("CPU:1"):
        small = [tf.Variable([number, 2]) for number in range(4)]
        large = tf.Variable(tf.random.stateless_uniform([500, 100], [1, 2]))
    checkpoint = tf.train.Checkpoint(small=small, large=large)
    for index in (0, 1):
        state, plan = take(checkpoint, workers=2, index=index)
        assert state._values.keys() == {piece.identity for piece in plan.shares[index]}
        for piece in plan.shares[index]:
            tensor = state._values[piece.identity]
            assert tensor.device.endswith("CPU:0")
            if piece.entry.key.startswith("large/"):
                np.testing.assert_array_equal(tensor, large.numpy()[slice(*piece.rows)])


@pytest.mark.parametrize("device", ["CPU:1", "/device:CPU:1"])
def test_files_are_written_from_the_device_asked_for(
    make, observer, tmp_path, monkeypatch, strategy, device
):
    used = []
    save = tf.raw_ops.SaveV2

    def spy(**kwargs):
        used.append(tf.constant(0).device)
        return save(**kwargs)

    monkeypatch.setattr(tf.raw_ops, "SaveV2", spy)
    options = tf.train.CheckpointOptions(experimental_io_device=device)
    path = make(Program(strategy, 1).checkpoint, tmp_path).save(options=options)
    assert used == ["/job:localhost/replica:0/task:0/device:CPU:1"]
    assert observer.verify(tmp_path, "ckpt-1") is not None
    assert len(observer.contents(path)) == 9


def test_a_fitted_model(round_trips):
    keras = tf.keras
    assert keras.__name__.startswith("tf_keras"), "Keras 3 does not train under strategies"

    def build(number):
        keras.backend.clear_session()
        keras.utils.set_random_seed(number)
        with tf.distribute.MirroredStrategy(CPUS).scope():
            model = keras.Sequential(
                [keras.Input([4]), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
            )
            model.compile("adam", loss="mse")
        model.fit(tf.random.normal([8, 4]), tf.random.normal([8, 2]), batch_size=8, verbose=0)
        weights = [*model.weights, *model.optimizer.variables]
        return program(
            tf.train.Checkpoint(model=model, optimizer=model.optimizer),
            lambda: [bits(tf.convert_to_tensor(w)) for w in weights],
        )

    round_trips.run(build, workers=False, whole=False)
