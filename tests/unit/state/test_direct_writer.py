"""distckpt's own writer makes the files of ``SaveV2``, byte for byte."""

from __future__ import annotations

import errno
import filecmp
import os
import weakref

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distckpt.core.tensorflow_format.dtypes import BY_NUMBER
from distckpt.core.tensorflow_format.slice_encoding import format_spec
from distckpt.runtime import disk_hints
from distckpt.state import direct_writer
from distckpt.state.capture import Capture
from distckpt.state.direct_writer import DirectWriter
from distckpt.state.shards import OpWriter

from .arrays import DTYPES, SHAPES, array

SUFFIXES = (".index", ".data-00000-of-00001")


class Unused:
    """Stands for TensorFlow's op where it must not be needed."""

    def write(self, *arguments):
        raise AssertionError("the op was used")


@pytest.fixture
def direct():
    writer = DirectWriter(durable=True)
    writer._other = Unused()
    return writer


def written(folder, writer, keys, specs, tensors):
    """Writes a bundle, and returns how its files' names begin."""
    folder.mkdir(exist_ok=True)
    writer.write(str(folder / "b"), keys, specs, list(tensors))
    assert sorted(os.listdir(folder)) == sorted(f"b{suffix}" for suffix in SUFFIXES)
    return str(folder / "b")


def check(tmp_path, direct, keys, specs, tensors):
    """Compares the files of both writers."""
    ours = written(tmp_path / "ours", direct, keys, specs, tensors)
    theirs = written(tmp_path / "theirs", OpWriter(), keys, specs, tensors)
    for suffix in SUFFIXES:
        assert filecmp.cmp(ours + suffix, theirs + suffix, shallow=False), suffix


@st.composite
def bundles(draw):
    """Returns keys, specs and tensors: whole ones of all types, and slices of variables."""
    keys, specs, tensors = [], [], []
    for key in draw(st.lists(st.text(min_size=1), unique=True, max_size=12)):
        key = key.encode("utf-8", "replace").decode()
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
        whole = array(dtype, shape, draw(st.integers(0, 99)))
        rows = shape[0] if shape else 0
        if key in keys:
            continue
        if rows > 1 and dtype != "string" and draw(st.booleans()):
            cut = draw(st.integers(1, rows - 1))
            rest = (None,) * (len(shape) - 1)
            for start, stop in draw(st.permutations([(0, cut), (cut, rows)])):
                keys.append(key)
                specs.append(format_spec(shape, ((start, stop - start), *rest)))
                tensors.append(tf.constant(whole[start:stop], dtype))
        else:
            keys.append(key)
            everything = format_spec(shape, tuple((0, n) for n in shape)) if shape else ""
            specs.append(draw(st.sampled_from(["", everything])) if 0 not in shape else "")
            tensors.append(tf.constant(whole, dtype))
    return keys, specs, tensors


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(bundles().filter(lambda bundle: bundle[0]))
def test_any_set_of_tensors(tmp_path, direct, bundle):
    check(tmp_path, direct, *bundle)


def some_values(number):
    """Returns an eager tensor of a type; skips the test if this TensorFlow cannot make one."""
    try:
        dtype = tf.as_dtype(number)
        if dtype.is_quantized:
            return tf.bitcast(
                tf.zeros([3], {1: tf.int8, 2: tf.int16, 4: tf.int32}[dtype.size]), dtype
            )
        return tf.constant(np.ones(3, dtype.as_numpy_dtype), dtype)
    except (TypeError, ValueError, KeyError, tf.errors.OpError) as error:
        pytest.skip(f"this TensorFlow cannot make a tensor of type {number}: {error}")


@pytest.mark.parametrize("number", [n for n, known in BY_NUMBER.items() if known.size])
def test_each_type_that_this_tensorflow_has(tmp_path, direct, number):
    check(tmp_path, direct, ["x"], [""], [some_values(number)])


def test_tensors_around_the_size_of_a_chunk(tmp_path, direct):
    sizes = [
        size + more
        for size in (direct_writer._SMALL, direct_writer._CHUNK, direct_writer._WRITEBACK)
        for more in (-1, 0, 1)
    ]
    tensors = [tf.cast(tf.range(size) % 251, tf.uint8) for size in sizes]
    check(tmp_path, direct, [f"v{n}" for n in range(len(sizes))], [""] * len(sizes), tensors)


def test_ten_thousand_small_ones(tmp_path, direct):
    names = [f"model/layer-{n // 10}/v{n % 10}/.ATTRIBUTES/VARIABLE_VALUE" for n in range(10_000)]
    check(
        tmp_path, direct, names, [""] * len(names), [tf.constant(float(n)) for n in range(10_000)]
    )


def test_an_iterator_is_written_by_tensorflow(tmp_path):
    iterator = iter(tf.data.Dataset.range(5))
    checkpoint = tf.train.Checkpoint(iterator=iterator, x=tf.Variable(1.0))
    writer = DirectWriter(durable=True)
    state, plan = Capture(checkpoint, workers=1, index=0, split="all", writer=writer).take()
    next(iterator)
    state.write(str(tmp_path), "b", plan.shares[0])
    next(iterator)
    checkpoint.read(str(tmp_path / "b")).assert_existing_objects_matched()
    assert next(iterator).numpy() == 0


def test_a_chosen_device_writes_by_tensorflow(tmp_path):
    writer = DirectWriter(durable=True)
    writer._other = Unused()
    with pytest.raises(AssertionError, match="the op was used"):
        writer.write(str(tmp_path / "b"), ["x"], [""], [tf.ones(3)], "/job:localhost")


def test_each_tensor_is_released_once_it_is_written(tmp_path, direct, monkeypatch):
    array = np.ones(1 << 20, np.uint8)
    tensors = [tf.constant(array) for _ in range(3)]
    seen = [weakref.ref(tensor) for tensor in tensors]
    alive = []
    real = direct_writer._write

    def write(file, tensor):
        alive.append([ref() is not None for ref in seen])
        return real(file, tensor)

    monkeypatch.setattr(direct_writer, "_write", write)
    direct.write(str(tmp_path / "b"), ["a", "b", "c"], [""] * 3, tensors)
    assert alive == [[True, True, True], [False, True, True], [False, False, True]]


def test_an_error_of_the_disk_names_the_file(tmp_path, direct):
    with pytest.raises(OSError, match=r"No such file.*/gone/b\.data") as caught:
        direct.write(str(tmp_path / "gone" / "b"), ["x"], [""], [tf.ones(3)])
    assert caught.value.errno == errno.ENOENT


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_with_the_path(tmp_path, direct):
    (tmp_path / "b.data-00000-of-00001").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device.*b\.data") as caught:
        direct.write(str(tmp_path / "b"), ["x"], [""], [tf.ones(3)])
    assert caught.value.errno == errno.ENOSPC


def test_without_the_hints_the_files_are_the_same(tmp_path, direct, monkeypatch):
    monkeypatch.setattr(disk_hints, "_function", lambda name: None)
    test_tensors_around_the_size_of_a_chunk(tmp_path, direct)


def test_space_that_a_file_cannot_have_is_refused_at_once(tmp_path):
    with open(tmp_path / "f", "wb") as file, pytest.raises(OSError, match=r"space|large"):
        disk_hints.preallocate(file.fileno(), 1 << 62)
    assert (tmp_path / "f").stat().st_size == 0


def test_reserved_space_does_not_change_the_size(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        disk_hints.preallocate(file.fileno(), 1 << 20)
    assert (tmp_path / "f").stat().st_size == 0
