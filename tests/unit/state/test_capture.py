"""All kinds of state: saved by us or TensorFlow, restored by us or TensorFlow, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.checkpoint import graph_view, save_util
from tensorflow.python.distribute.sharded_variable import ShardedVariable
from tensorflow.python.ops.resource_variable_ops import UninitializedVariable
from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec

from distckpt.core.plan import OBJECT_GRAPH_KEY
from distckpt.errors import UnsupportedOptionError
from distckpt.state.capture import DelegatedState, TensorState

from .conftest import bits, program, take

DTYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "string"),
    *("half", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("float8_e5m2", "float8_e4m3fn"),
]
SHAPES = [(), (0,), (3, 0, 2), (1,), (5,), (2, 3, 4)]


def of_variables(*variables, **tracked):
    checkpoint = tf.train.Checkpoint(**(tracked or {"all": list(variables)}))
    return program(checkpoint, lambda: [bits(v) for v in variables])


def array(dtype, shape, seed):
    """Any bytes make a value; text is of many lengths, none and longer than a buffer among them."""
    random = np.random.default_rng([seed, *shape])
    count = int(np.prod(shape))
    if dtype == "string":
        lengths = random.choice([0, 1, 127, 128, 5000], count)
        return np.array([random.bytes(n) for n in lengths], object).reshape(shape)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    kind = tf.as_dtype(dtype)
    return np.frombuffer(random.bytes(count * kind.size), kind.as_numpy_dtype).reshape(shape)


# --- Variables


@pytest.mark.parametrize("dtype", DTYPES)
def test_variables_of_every_type_and_shape(round_trips, dtype):
    def build(number):
        return of_variables(
            *(tf.Variable(tf.constant(array(dtype, s, number), tf.as_dtype(dtype))) for s in SHAPES)
        )

    round_trips.run(build)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "bool", "int8", "complex128"])
def test_variables_that_workers_divide(round_trips, observer, dtype):
    def build(number):
        value = tf.constant(array(dtype, (7, 9001), number), tf.as_dtype(dtype))
        return of_variables(tf.Variable(value))

    round_trips.run(build)
    manifest = observer.verify(round_trips.root / "shared", "ckpt-1")
    (entry,) = [e for e in manifest.entries if e.key.startswith("all/0/")]
    assert len(entry.pieces) > 1


def test_unusual_floats(round_trips):
    def build(number):
        values = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e-310, number]
        payload = np.frombuffer(b"\x01\x02\x03\x00\x00\x00\xf8\x7f", np.float64)
        return of_variables(tf.Variable(np.concatenate([values, payload])))

    round_trips.run(build)


def test_a_variable_whose_shape_changes(round_trips):
    def build(number):
        variable = tf.Variable(tf.zeros([1, 2]), shape=tf.TensorShape(None))
        variable.assign(tf.ones([number + 3, number]))
        return of_variables(variable)

    round_trips.run(build)


def test_an_uninitialised_variable_is_left_out(make, observer, tmp_path):
    """TensorFlow leaves it out, too, and then cannot restore into a program that has it."""
    empty = UninitializedVariable(shape=[2], dtype=tf.float32)
    checkpoint = tf.train.Checkpoint(empty=empty, full=tf.Variable(5))
    plain = tf.train.CheckpointManager(checkpoint, tmp_path / "plain", 3).save()
    checkpoint.save_counter.assign(0)
    ours = make(checkpoint, tmp_path / "ours").save()
    assert observer.contents(ours) == observer.contents(plain)
    for path in (ours, plain):
        with pytest.raises(tf.errors.NotFoundError, match="empty"):
            checkpoint.restore(path)
        copy = tf.train.Checkpoint(full=tf.Variable(0))
        copy.restore(path)
        assert copy.full.numpy() == 5


def test_a_variable_split_by_a_partitioner(round_trips, observer):
    """Written as slices of one tensor, and restored to another division."""

    def build(number):
        parts = [3, 2, 1] if number == 1 else [1, 5]
        values = tf.reshape(tf.range(12.0) * number, [6, 2])
        shards = ShardedVariable([tf.Variable(part) for part in tf.split(values, parts)])
        return program(
            tf.train.Checkpoint(table=shards), lambda: bits(tf.concat(list(shards.variables), 0))
        )

    paths = round_trips.run(build)
    key = "table/.ATTRIBUTES/VARIABLE_VALUE"
    assert observer.contents(paths["ours"])[key][1] == [6, 2]


# --- What tracks variables


def test_modules_and_containers(round_trips):
    class Layer(tf.Module):
        def __init__(self, number):
            super().__init__("layer")
            self.kernel = tf.Variable(tf.fill([3, 2], float(number)))
            self.history = [tf.Variable(number), {"inner": (tf.Variable(-number), 7, "text")}]
            self.frozen = tf.Variable([number], trainable=False)

    def build(number):
        layer = Layer(number)
        shared = tf.Variable([number, number])
        checkpoint = tf.train.Checkpoint(
            layer=layer,
            pair=(shared, tf.Variable(0.5 * number)),
            names={"a/b": tf.Variable(number), "c.d": [shared], "": tf.Variable(number)},
            again=shared,
            nothing=tf.train.Checkpoint(),
        )
        names = checkpoint.names
        return program(
            checkpoint,
            lambda: (
                [bits(v) for v in (*layer.variables, *checkpoint.pair, names["a/b"])]
                + [bits(names[""]), names["c.d"][0] is checkpoint.again]
            ),
        )

    round_trips.run(build)


def test_a_root_with_more_beside_it(round_trips):
    def build(number):
        root = tf.Module()
        root.kernel = tf.Variable(number)
        step = tf.Variable(10 * number)
        checkpoint = tf.train.Checkpoint(root, step=step)
        return program(checkpoint, lambda: [bits(root.kernel), bits(step)])

    round_trips.run(build)


def test_objects_in_a_circle(round_trips):
    def build(number):
        one, other = tf.Module(), tf.Module()
        one.next, other.next = other, one
        one.value, other.value = tf.Variable(number), tf.Variable(-number)
        return program(tf.train.Checkpoint(one=one), lambda: [bits(one.value), bits(other.value)])

    round_trips.run(build)


def test_variables_made_after_the_restore_get_their_values(make, tmp_path):
    for index, factory in enumerate((make, tf.train.CheckpointManager)):
        value = tf.Variable([1.0, 2.0])
        checkpoint = tf.train.Checkpoint(layer=tf.Module(), value=value)
        checkpoint.layer.kernel = tf.Variable([3.0])
        factory(checkpoint, tmp_path / str(index), 3).save()
        late = tf.train.Checkpoint(layer=tf.Module())
        make(late, tmp_path / str(index)).restore_or_initialize()
        late.layer.kernel = tf.Variable([0.0])
        late.value = tf.Variable([0.0, 0.0])
        assert late.layer.kernel.numpy().tolist() == [3.0]
        assert late.value.numpy().tolist() == [1.0, 2.0]


def test_state_that_the_program_no_longer_has_is_passed_over(make, tmp_path):
    old = tf.train.Checkpoint(value=tf.Variable(1.0), gone=tf.Variable(2.0))
    make(old, tmp_path).save()
    new = tf.train.Checkpoint(value=tf.Variable(0.0), added=tf.Variable(9.0))
    manager = make(new, tmp_path)
    manager.restore_or_initialize()
    assert (new.value.numpy(), new.added.numpy()) == (1.0, 9.0)
    assert manager.save() == f"{tmp_path}/ckpt-2"


# --- State that is not in variables


def test_tables(round_trips):
    def build(number):
        mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        mutable.insert(["a", "b", str(number)], [1, 2, number])
        dense = tf.lookup.experimental.DenseHashTable(
            tf.int64, tf.float32, default_value=[0.0, 0.0], empty_key=-1, deleted_key=-2
        )
        dense.insert([1, 2 * number], [[1.0, 2.0], [number, 3.0]])
        static = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["x", "y"], [1, 2]), -1
        )
        empty = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, "none")

        def read():
            return [
                dict(zip(*(t.numpy().tolist() for t in mutable.export()), strict=True)),
                dense.lookup(tf.range(6, dtype=tf.int64)).numpy().tolist(),
                static.lookup(tf.constant(["x", "y", "z"])).numpy().tolist(),
                int(empty.size()),
            ]

        checkpoint = tf.train.Checkpoint(mutable=mutable, dense=dense, static=static, empty=empty)
        return program(checkpoint, read)

    round_trips.run(build)


class Settings(tf.train.experimental.PythonState):
    def __init__(self, **values):
        super().__init__()
        self.values = values

    def serialize(self):
        return json.dumps(self.values)

    def deserialize(self, text):
        self.values = json.loads(text)


def test_state_of_python(round_trips):
    def build(number):
        one, other = Settings(rate=number), Settings()
        return program(
            tf.train.Checkpoint(one=one, other=[other]), lambda: [one.values, other.values]
        )

    round_trips.run(build)


def test_random_generators(round_trips):
    def build(number):
        generator = tf.random.Generator.from_seed(number)
        generator.normal([number])
        return program(
            tf.train.Checkpoint(generator=generator), lambda: bits(generator.normal([3]))
        )

    round_trips.run(build)


def pipelines():
    numbers = tf.data.Dataset.range(100)
    return {
        "range": numbers,
        "batches": numbers.map(lambda n: (n, tf.as_string(n))).batch(3),
        "shuffled": numbers.shuffle(20, seed=5).repeat(),
        "prefetched": numbers.interleave(
            lambda n: tf.data.Dataset.from_tensors(n).repeat(3), cycle_length=2
        ).prefetch(4),
    }


@pytest.mark.parametrize("name", ["range", "batches", "shuffled", "prefetched"])
def test_iterators_go_on_where_they_were(round_trips, name):
    def build(number):
        tf.random.set_seed(3)
        iterator = iter(pipelines()[name])
        for _ in range(3 * number):
            next(iterator)
        return program(
            tf.train.Checkpoint(iterator=iterator, number=tf.Variable(number)),
            lambda: [[bits(part) for part in tf.nest.flatten(next(iterator))] for _ in range(5)],
        )

    round_trips.run(build, workers=False)


class Box(tf.__internal__.tracking.AutoTrackable):
    """Serializes itself: as tensors, and as a spec that is read late."""

    def __init__(self, number, device=None):
        self.numbers = {"plain": number, "other": 2 * number, "late": 3 * number}
        self.device = device or tf.constant(0).device

    def _serialize_to_tensors(self):
        late = SaveSpec(
            lambda: tf.constant(self.numbers["late"]), "", "x", dtype=tf.int32, device=self.device
        )
        return {
            "plain": tf.constant([self.numbers["plain"]]),
            "other": tf.constant(self.numbers["other"]),
            "late": late,
        }

    def _restore_from_tensors(self, tensors):
        self.numbers = {name: int(tf.squeeze(value)) for name, value in tensors.items()}
        return tf.no_op()


def test_objects_that_serialize_themselves(round_trips):
    def build(number):
        box = Box(number)
        return program(tf.train.Checkpoint(box=box, more=[Box(5)]), lambda: dict(box.numbers))

    round_trips.run(build)


@pytest.mark.parametrize("device", ["CPU:0", "/cpu:0", "/device:CPU:0", ""])
def test_a_device_without_a_task_is_of_this_one(make, observer, tmp_path, device):
    checkpoint = tf.train.Checkpoint(box=Box(3, device), value=tf.Variable(1))
    assert isinstance(take(checkpoint, workers=2)[0], TensorState)
    plain = tf.train.CheckpointManager(checkpoint, tmp_path / "plain", 3).save()
    checkpoint.save_counter.assign(0)
    ours = make(checkpoint, tmp_path / "ours").save()
    assert observer.contents(ours) == observer.contents(plain)


class Legacy(tf.__internal__.tracking.Trackable):
    """Has `SaveableObject`s, the way of older TensorFlow."""

    def __init__(self, number):
        self.value = tf.Variable([number, number], trainable=False)

    def _gather_saveables_for_checkpoint(self):
        outer = self

        class Saveable(SaveableObject):
            def __init__(self, name):
                value = outer.value
                specs = [
                    SaveSpec(value.read_value, "", f"{name}-{part}", tf.int32, value.device)
                    for part in ("one", "two")
                ]
                super().__init__(value, specs, name)

            def restore(self, restored_tensors, restored_shapes):
                return outer.value.assign(restored_tensors[1])

        return {"BOTH": Saveable}


def test_objects_that_are_saved_the_old_way(round_trips):
    def build(number):
        legacy = Legacy(number)
        return program(tf.train.Checkpoint(legacy=legacy), lambda: bits(legacy.value))

    round_trips.run(build)


# --- What is held, and what is left to TensorFlow


def test_the_entries_are_those_that_tensorflow_would_write():
    checkpoint = of_variables(tf.Variable([1.0, 2.0]), tf.Variable("text")).checkpoint
    checkpoint.save_counter.assign(3)
    state, plan = take(checkpoint)
    assert isinstance(state, TensorState)
    expected, _, _, _ = save_util.serialize_graph_view(graph_view.ObjectGraphView(checkpoint))
    keys = {key for by_key in expected.values() for key in by_key}
    assert {e.key for e in plan.entries} == keys | {OBJECT_GRAPH_KEY}
    sizes = {e.key.split("/.")[0]: (e.dtype, e.shape, e.nbytes) for e in plan.entries}
    assert sizes["all/0"] == ("float32", (2,), 8)
    assert sizes["all/1"] == ("string", (), 16)
    assert sizes["save_counter"] == ("int64", (), 8)


def test_only_what_is_equal_everywhere_is_shared():
    checkpoint = of_variables(tf.Variable([1.0]), tf.Variable("text")).checkpoint
    checkpoint.save_counter.assign(3)
    chief_only = {
        split: {
            e.key.split("/.")[0]
            for e in take(checkpoint, workers=2, split=split)[1].entries
            if e.chief_only
        }
        for split in ("all", "distributed")
    }
    assert chief_only["all"] == {"all/1", OBJECT_GRAPH_KEY}
    assert chief_only["distributed"] == {"all/0", "all/1", "save_counter", OBJECT_GRAPH_KEY}


def test_what_only_the_chief_writes_may_be_of_any_size():
    def plan(size):
        table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
        table.insert(tf.range(size, dtype=tf.int64), tf.range(size, dtype=tf.int64))
        checkpoint = tf.train.Checkpoint(table=table, value=tf.Variable(1))
        return take(checkpoint, workers=2, split="distributed")[1]

    assert plan(2).fingerprint == plan(30_000).fingerprint


def test_a_worker_holds_its_own_share_and_lets_go_of_what_is_written(tmp_path):
    checkpoint = of_variables(tf.Variable([1.0]), tf.Variable([2.0]), tf.Variable([3.0])).checkpoint
    state, plan = take(checkpoint, workers=2, index=1)
    share = plan.shares[1]
    assert set(state._values) == {piece.identity for piece in share}
    assert len(state._values) < len(plan.entries)
    state.write(str(tmp_path), "part", share[:1])
    assert set(state._values) == {piece.identity for piece in share[1:]}


def test_a_sharding_callback_is_left_to_tensorflow_and_to_one_worker():
    checkpoint = of_variables(tf.Variable([1.0])).checkpoint
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.ShardByTaskPolicy()
    )
    state, _ = take(checkpoint, options=options)
    assert isinstance(state, DelegatedState)
    assert not state.held
    with pytest.raises(UnsupportedOptionError, match="shared between 2 workers"):
        take(checkpoint, workers=2, options=options)
