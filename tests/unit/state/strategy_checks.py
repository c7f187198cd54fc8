"""Variables made under strategies of one process with two devices; run by test_separately.py.

TensorFlow divides the CPU only before its first use, so this needs a process of its own.
"""

from __future__ import annotations

import pytest
import tensorflow as tf

from distckpt.state.capture import TensorState

from .conftest import bits, program, take

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
        self.outside = tf.Variable([number])
        with tf.device("CPU:1"):
            self.elsewhere = tf.Variable([number, number])
        strategy.run(self.train)
        self.checkpoint = tf.train.Checkpoint(
            weights=self.weights,
            step=self.step,
            sum=self.sum,
            mean=self.mean,
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
        self.step.assign_add(1)

    def read(self):
        distributed = [self.weights, self.step, self.sum, self.mean]
        local = [self.strategy.experimental_local_results(v) for v in (self.weights, self.step)]
        return [bits(v.read_value()) for v in (*distributed, self.outside, self.elsewhere)] + [
            [bits(value) for value in values] for values in local
        ]


def test_variables_of_strategies(round_trips, strategy):
    round_trips.run(lambda number: Program(strategy, number))


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
    assert copy.read()[:6] == original.read()[:6]
    make(copy.checkpoint, tmp_path / "two").save()
    back = Program(STRATEGIES["mirrored"](), 3)
    make(back.checkpoint, tmp_path / "two").restore_or_initialize()
    assert back.read()[:6] == original.read()[:6]


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
    made_under = {"weights", "step", "sum", "mean"}
    distributed = isinstance(program.weights, tf.distribute.DistributedValues)
    assert shared == (made_under if distributed else set())


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
    assert len(observer.contents(path)) == 8


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
