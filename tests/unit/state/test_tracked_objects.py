"""Round trips of what tracks variables, and of state that is not in variables."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec

from distckpt.state.capture import TensorState

from ..kit.python_state import Settings
from .conftest import bits, program, take


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
    """Has `SaveableObject`s, as in older TensorFlow."""

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
