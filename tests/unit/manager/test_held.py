"""An asynchronous save writes what the state was at the moment of `save()`, whatever gave it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec

from distckpt.coordination.in_process import InProcessJob

from ..state.conftest import together
from .conftest import ASYNC

ROWS = 4096


def shared_memory(dtype="float32"):
    """An array, and a tensor in its memory: what changes the one changes the other."""
    memory = np.zeros((ROWS + 1) * 64, np.uint8)
    start = -memory.ctypes.data % 64  # TensorFlow copies what is not aligned, also of single rows
    array = memory[start : start + ROWS * 64].view(dtype).reshape(ROWS, -1)
    array[:] = 1
    return array, tf.raw_ops.Identity(input=array)


class Tracked(tf.__internal__.tracking.AutoTrackable):
    """Gives what a function returns, as a tensor or as a spec that is read late."""

    def __init__(self, value, late):
        self.value, self.late = value, late

    def _serialize_to_tensors(self):
        if not self.late:
            return {"x": self.value()}
        device = tf.constant(0).device
        return {"x": SaveSpec(self.value, "", "x", dtype=tf.float32, device=device)}

    def _restore_from_tensors(self, tensors):
        return tf.no_op()


class Old(tf.__internal__.tracking.Trackable):
    """Gives it by a `SaveableObject`, the way of older TensorFlow."""

    def __init__(self, value):
        self.value = value

    def _gather_saveables_for_checkpoint(self):
        class Saveable(SaveableObject):
            def __init__(saveable, name):
                super().__init__(None, [SaveSpec(self.value(), "", name)], name)

            def restore(saveable, tensors, shapes):
                return tf.no_op()

        return {"x": Saveable}


def dense_table():
    table = tf.lookup.experimental.DenseHashTable(
        tf.int64, tf.int64, default_value=-1, empty_key=-1, deleted_key=-2
    )
    table.insert(tf.range(100, dtype=tf.int64), tf.ones(100, tf.int64))
    return table, lambda: table.insert(tf.range(100, dtype=tf.int64), tf.zeros(100, tf.int64))


def dense_table_of_text():
    table = tf.lookup.experimental.DenseHashTable(
        tf.string, tf.int64, default_value=-1, empty_key="", deleted_key="-"
    )
    table.insert(["a", "a key that is longer than a short string"], tf.constant([1, 1], tf.int64))

    def change():
        table.erase(tf.constant(["a key that is longer than a short string"]))
        table.insert(["b", "another key that is longer than that"], tf.constant([2, 2], tf.int64))

    return table, change


def plain_table():
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    table.insert(tf.range(100, dtype=tf.int64), tf.ones(100, tf.int64))
    return table, lambda: table.insert(tf.range(99, dtype=tf.int64), tf.zeros(99, tf.int64))


def given(make, dtype="float32"):
    array, tensor = shared_memory(dtype)
    return make(lambda: tensor), lambda: array.fill(2)


def given_by_dlpack():
    array, _ = shared_memory()
    tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return Tracked(lambda: tensor, late=False), lambda: array.fill(2)


def given_buffer_of_another():
    """A variable that serializes itself gives its value, and is then changed in place."""
    variable = tf.Variable(tf.ones([ROWS, 4]))
    return (
        Tracked(lambda: variable.read_value(), late=False),
        lambda: variable.assign(tf.zeros([ROWS, 4])),
    )


def of_no_fixed_shape():
    variable = tf.Variable(tf.ones([3, 2]), shape=tf.TensorShape([None, 2]))
    return variable, lambda: variable.assign_add(tf.ones([3, 2]))


KINDS = {
    "a dense table": dense_table,
    "a dense table of text": dense_table_of_text,
    "a table": plain_table,
    "memory of NumPy": lambda: given(lambda v: Tracked(v, late=False)),
    "memory of NumPy, read late": lambda: given(lambda v: Tracked(v, late=True)),
    "memory of NumPy, the old way": lambda: given(Old),
    "memory of NumPy, bytes": lambda: given(lambda v: Tracked(v, late=False), "uint8"),
    "memory of NumPy, float64": lambda: given(lambda v: Tracked(v, late=False), "float64"),
    "memory of others": given_by_dlpack,
    "a buffer of a variable": given_buffer_of_another,
    "a variable of no fixed shape": of_no_fixed_shape,
}


def contents(path, observer):
    return {k: v for k, v in observer.contents(path).items() if k.startswith("it")}


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_given_is_that_of_the_moment(make, gate, observer, tmp_path, kind):
    thing, change = KINDS[kind]()
    checkpoint = tf.train.Checkpoint(it=thing)
    expected = contents(checkpoint.save(tmp_path / "plain"), observer)
    assert expected
    manager = make(checkpoint, tmp_path / "ours", options=ASYNC)
    for number in (1, 2):  # the first save looks for what there is; the second knows it
        gate.open.clear()
        path = manager.save(number)
        change()
        gate.open.set()
        manager.sync()
        assert contents(path, observer) == expected
        expected = contents(checkpoint.save(tmp_path / "plain"), observer)


@pytest.mark.parametrize("kind", ["a dense table", "memory of NumPy", "memory of NumPy, read late"])
def test_so_is_what_only_one_worker_has(make, gate, observer, tmp_path, kind):
    thing, change = KINDS[kind]()
    own = tf.train.Checkpoint(it=thing)
    expected = contents(own.save(tmp_path / "plain"), observer)
    manager = make(tf.train.Checkpoint(), tmp_path / "ours", worker_checkpoint=own, options=ASYNC)
    gate.open.clear()
    manager.save()
    change()
    gate.open.set()
    manager.sync()
    (index,) = (tmp_path / "ours").glob("ckpt-1.*worker*.index")
    assert contents(str(index)[: -len(".index")], observer) == expected


@pytest.mark.parametrize("kind", ["memory of NumPy", "memory of NumPy, bytes"])
def test_so_is_what_several_workers_divide(make, gate, observer, tmp_path, kind):
    job, things = InProcessJob(2), [KINDS[kind]() for _ in range(2)]
    checkpoints = [tf.train.Checkpoint(it=thing) for thing, _ in things]
    expected = contents(checkpoints[0].save(tmp_path / "plain"), observer)
    checkpoints[0].save_counter.assign(0)
    managers = [
        make(checkpoint, tmp_path / "ours", coordinator=job.coordinator(index), options=ASYNC)
        for index, checkpoint in enumerate(checkpoints)
    ]
    gate.open.clear()
    path, _ = [manager.save() for manager in managers]
    for _, change in things:
        change()
    gate.open.set()
    together([manager.sync for manager in managers])
    assert contents(path, observer) == expected
    (entry,) = [
        e for e in observer.verify(tmp_path / "ours", "ckpt-1").entries if e.key.startswith("it/")
    ]
    assert len(entry.pieces) == 2


def test_so_is_an_iterator(make, gate, observer, tmp_path):
    def pipeline():
        numbers = tf.data.Dataset.from_tensor_slices(np.arange(4000).reshape(200, 20))
        return iter(numbers.shuffle(50, seed=3).map(lambda row: row + 1).prefetch(2))

    iterator, expected = pipeline(), pipeline()
    for _ in range(10):
        next(iterator), next(expected)
    manager = make(tf.train.Checkpoint(it=iterator), tmp_path, options=ASYNC)
    gate.open.clear()
    path = manager.save()
    for _ in range(40):
        next(iterator)
    gate.open.set()
    manager.sync()
    copy = pipeline()
    tf.train.Checkpoint(it=copy).restore(path)
    assert np.array_equal(next(copy), next(expected))


def variables():
    """Returns variables by what changes them in place, and the changes."""
    ones, rows = tf.ones([ROWS, 16]), tf.ones([2, 16])
    at = tf.constant([1, 5])
    raw = tf.raw_ops
    slots = {name: tf.Variable(tf.ones([ROWS, 16])) for name in ("m", "v")}
    changes = {
        "assign": lambda v: v.assign(ones * 3),
        "assign without reading": lambda v: v.assign(ones * 3, read_value=False),
        "assign_add": lambda v: v.assign_add(ones),
        "assign_sub, locking": lambda v: v.assign_sub(ones, use_locking=True),
        "part": lambda v: v[2:7].assign(ones[2:7] * 3),
        "scatter_update": lambda v: v.scatter_update(tf.IndexedSlices(rows * 3, at)),
        "scatter_add, locking": lambda v: v.scatter_add(tf.IndexedSlices(rows, at), True),
        "scatter_nd_update": lambda v: v.scatter_nd_update(at[:, None], rows * 3),
        "scatter_nd_add": lambda v: v.scatter_nd_add(at[:, None], rows),
        "batch_scatter_update": lambda v: v.batch_scatter_update(tf.IndexedSlices(rows * 3, at)),
        "ResourceScatterMul": lambda v: raw.ResourceScatterMul(
            resource=v.handle, indices=at, updates=rows * 3
        ),
        "ResourceApplyGradientDescent": lambda v: raw.ResourceApplyGradientDescent(
            var=v.handle, alpha=0.5, delta=ones
        ),
        "ResourceApplyAdam, locking": lambda v: raw.ResourceApplyAdam(
            var=v.handle,
            m=slots["m"].handle,
            v=slots["v"].handle,
            beta1_power=0.5,
            beta2_power=0.5,
            lr=0.5,
            beta1=0.5,
            beta2=0.5,
            epsilon=0.5,
            grad=ones,
            use_locking=True,
        ),
        "ResourceSparseApplyMomentum": lambda v: raw.ResourceSparseApplyMomentum(
            var=v.handle, accum=slots["m"].handle, lr=0.5, grad=rows, indices=at, momentum=0.5
        ),
        "compiled": lambda v: tf.function(lambda: v.assign_add(tf.sin(v)), jit_compile=True)(),
        "in a function": lambda v: tf.function(lambda: v.assign_add(ones * 2))(),
    }
    return {name: (tf.Variable(ones), change) for name, change in changes.items()}


def test_what_a_variable_holds_is_that_of_the_moment(make, gate, observer, tmp_path):
    """Held by reference: all that TensorFlow has to change a variable in place makes a copy."""
    pairs = variables()
    counter, random = tf.Variable(1, dtype=tf.int64), tf.random.Generator.from_seed(1)
    checkpoint = tf.train.Checkpoint(
        it={str(n): v for n, (v, _) in enumerate(pairs.values())}, it2=counter, it3=random
    )
    manager = make(checkpoint, tmp_path / "ours", options=ASYNC)
    for number in range(1, 4):  # after the first, sparse updates have put some into another mode
        expected = contents(checkpoint.save(tmp_path / "plain"), observer)
        gate.open.clear()
        path = manager.save(number)
        for _ in range(2):
            for variable, change in pairs.values():
                change(variable)
            counter.assign_add(1)
            random.normal([5])
        assert contents(checkpoint.save(tmp_path / "plain"), observer) != expected
        gate.open.set()
        manager.sync()
        assert contents(path, observer) == expected


@pytest.mark.parametrize("make_variable", ["given", "assigned"])
def test_a_variable_made_from_an_array_does_not_share_its_memory(
    make,
    gate,
    observer,
    tmp_path,
    make_variable,
):
    array, _ = shared_memory()
    variable = tf.Variable(array if make_variable == "given" else np.zeros_like(array))
    variable.assign(array)
    checkpoint = tf.train.Checkpoint(it=variable)
    expected = contents(checkpoint.save(tmp_path / "plain"), observer)
    manager = make(checkpoint, tmp_path / "ours", options=ASYNC)
    gate.open.clear()
    path = manager.save()
    array.fill(2)
    gate.open.set()
    manager.sync()
    assert contents(path, observer) == expected
