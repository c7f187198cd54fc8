"""Tensors read without TensorFlow are those that TensorFlow reads."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_io_ops

from distckpt.core.tensorflow_format import tensor_values
from distckpt.errors import CheckpointDamagedError, ConfigurationError, UnsupportedOptionError
from distckpt.inspection import diff
from distckpt.reading.tensors import Tensors
from distckpt.storage.local import LocalStorage

DTYPES = [
    tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.int8, tf.int16, tf.int32, tf.int64,
    tf.uint8, tf.uint16, tf.uint32, tf.uint64, tf.bool, tf.complex64, tf.complex128,
    tf.dtypes.experimental.float8_e4m3fn, tf.dtypes.experimental.float8_e5m2,
]  # fmt: skip


def write(directory, name="ckpt-1", **tensors):
    """Writes tensors with SaveV2; a pair is a tensor and a slice spec."""
    keys, specs, data = [], [], []
    for key, value in tensors.items():
        value, spec = value if isinstance(value, tuple) else (value, "")
        keys.append(key.partition("__")[0])
        specs.append(spec)
        data.append(tf.convert_to_tensor(value))
    gen_io_ops.save_v2(os.path.join(directory, name), keys, specs, data)
    return Tensors(LocalStorage(), str(directory), name)


def cast(numbers, dtype):
    """TensorFlow casts not everything to float8, but float32."""
    return tf.cast(tf.cast(numbers, tf.float32), dtype)


def read(tensors, key, rows=None):
    return tensors.read(tensors.find(key), rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (0, 3)])
def test_every_type_is_read_as_tensorflow_reads_it(tmp_path, dtype, shape):
    numbers = np.arange(math.prod(shape)).reshape(shape) % 3
    tensors = write(tmp_path, x=cast(numbers, dtype))
    ours = read(tensors, "x")
    theirs = tf.train.load_checkpoint(str(tmp_path / "ckpt-1")).get_tensor("x")
    assert ours.dtype == np.asarray(theirs).dtype
    assert ours.shape == shape
    assert ours.tobytes() == np.asarray(theirs).tobytes()


@pytest.mark.parametrize(
    "strings", [[], [b""], [b"a", b"", b"x" * 300, b"nul\0"], [[b"a", b"b"], [b"c", b"d"]]]
)
def test_strings(tmp_path, strings):
    tensors = write(tmp_path, s=tf.constant(strings, tf.string))
    assert read(tensors, "s").tolist() == strings
    if strings:
        assert read(tensors, "s", (0, 1)).tolist() == strings[:1]


def test_a_partitioned_tensor_is_put_together(tmp_path):
    whole = np.arange(24.0, dtype=np.float32).reshape(6, 4)
    tensors = write(
        tmp_path,
        x__1=(whole[:2], "6 4 0,2:-"),
        x__2=(whole[2:, :1], "6 4 2,4:0,1"),
        x__3=(whole[2:, 1:], "6 4 2,4:1,3"),
    )
    assert (read(tensors, "x") == whole).all()
    for rows in [(0, 6), (1, 3), (2, 2), (5, 6), (0, 1)]:
        assert (read(tensors, "x", rows) == whole[slice(*rows)]).all()
    assert len(tensors.find("x").pieces) == 3


def test_rows_are_read_alone(tmp_path):
    class Counting(LocalStorage):
        read_bytes = 0

        def read(self, path, offset=0, size=None):
            data = super().read(path, offset, size)
            self.read_bytes += len(data) if ".data-" in path else 0
            return data

    whole = np.random.default_rng(1).normal(size=(1000, 50))
    write(tmp_path, x=whole)
    storage = Counting()
    tensors = Tensors(storage, str(tmp_path), "ckpt-1")
    assert (read(tensors, "x", (10, 12)) == whole[10:12]).all()
    assert storage.read_bytes == 2 * 50 * 8


@pytest.mark.parametrize("rows", [(-1, 2), (0, 4), (2, 1)])
def test_rows_that_are_not_there(tmp_path, rows):
    tensors = write(tmp_path, x=[1.0, 2.0, 3.0], y=1.0)
    with pytest.raises(ConfigurationError, match="has no rows"):
        read(tensors, "x", rows)
    with pytest.raises(ConfigurationError, match="has no rows"):
        read(tensors, "y", (0, 1))


def test_the_nearest_keys_are_suggested(tmp_path):
    checkpoint = tf.train.Checkpoint(kernel=tf.Variable(1.0), bias=tf.Variable(2.0))
    checkpoint.write(str(tmp_path / "ckpt-1"))
    tensors = Tensors(LocalStorage(), str(tmp_path), "ckpt-1")
    assert read(tensors, "bias") == 2.0
    assert read(tensors, "bias/.ATTRIBUTES/VARIABLE_VALUE") == 2.0
    with pytest.raises(ConfigurationError, match=r"no tensor 'kernal'\. Did you mean kernel\?"):
        tensors.find("kernal")


def test_damage_is_noticed(tmp_path):
    write(tmp_path, x=[1.0, 2.0], s=[b"abc", b"d"])
    path = tmp_path / "ckpt-1.data-00000-of-00001"
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with pytest.raises(CheckpointDamagedError, match="data-00000-of-00001: Tensor"):
            read_all(tmp_path)
    path.write_bytes(data[:-1])
    with pytest.raises(CheckpointDamagedError):
        read_all(tmp_path)


def read_all(directory):
    tensors = Tensors(LocalStorage(), str(directory), "ckpt-1")
    return [tensors.read(tensor) for tensor in tensors.all()]


def test_a_type_without_a_counterpart_is_refused():
    with pytest.raises(UnsupportedOptionError, match="type variant"):
        tensor_values.numpy_dtype("variant")


# --- compare


def differences(left, right):
    return {d.key: d for d in diff.compare(left, right)}


def test_what_differs_and_by_how_much(tmp_path):
    one = write(tmp_path, "ckpt-1", a=[3.0, 4.0], b=[1, 2], c=1.0, d=[1.0], s=[b"x"], t=[b"x"])
    two = write(tmp_path, "ckpt-2", a=[3.0, 4.5], b=[1, 2], e=1.0, d=[1], s=[b"y"], t=[b"x"])
    found = differences(one, two)
    assert {k: d.kind for k, d in found.items()} == {
        "a": diff.CHANGED,
        "b": diff.SAME,
        "c": diff.ONLY_LEFT,
        "d": diff.OTHER_KIND,
        "e": diff.ONLY_RIGHT,
        "s": diff.CHANGED,
        "t": diff.SAME,
    }
    assert (found["a"].largest, found["a"].norm, found["a"].relative) == (0.5, 0.5, 0.1)
    order = [d.key for d in sorted(found.values(), key=diff.by_size) if d.kind != diff.SAME]
    assert order == ["c", "d", "e", "s", "a"]


def test_nan_and_infinity_are_values_too(tmp_path):
    one = write(tmp_path, "ckpt-1", a=[math.nan, math.inf, 1.0], b=[1.0, 0.0], c=[0.0])
    two = write(tmp_path, "ckpt-2", a=[math.nan, math.inf, 2.0], b=[math.nan, 0.0], c=[1.0])
    found = differences(one, two)
    assert (found["a"].largest, found["a"].norm) == (1.0, 1.0)
    assert found["b"].largest == math.inf
    assert found["c"].relative == math.inf


def test_how_a_tensor_is_divided_makes_no_difference(tmp_path):
    whole = np.arange(24.0).reshape(6, 4)
    one = write(tmp_path, "ckpt-1", x=whole)
    two = write(tmp_path, "ckpt-2", x__1=(whole[:2], "6 4 0,2:-"), x__2=(whole[2:], "6 4 2,4:-"))
    assert differences(one, two)["x"].kind == diff.SAME


def test_equal_checksums_are_not_read(tmp_path):
    one = write(tmp_path, "ckpt-1", a=[3.0, 4.0])
    two = write(tmp_path, "ckpt-2", a=[3.0, 4.0])
    for path in tmp_path.glob("*.data-*"):
        path.unlink()
    assert differences(one, two)["a"].kind == diff.SAME


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_all_types_can_be_compared(tmp_path, dtype):
    one = write(tmp_path, "ckpt-1", x=cast([0, 1], dtype))
    two = write(tmp_path, "ckpt-2", x=cast([0, 0], dtype))
    assert differences(one, two)["x"].largest == 1.0
