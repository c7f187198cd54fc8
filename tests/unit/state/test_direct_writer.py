"""distckpt's own writer makes the files of ``SaveV2``, byte for byte."""

from __future__ import annotations

import ctypes
import errno
import filecmp
import os
import resource
import shutil
import weakref

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distckpt.core.tensorflow_format.dtypes import BY_NUMBER
from distckpt.core.tensorflow_format.index_reader import BundleEntry, read_index
from distckpt.core.tensorflow_format.slice_encoding import format_spec
from distckpt.runtime import disk_hints
from distckpt.state.capture import Capture
from distckpt.state.writing import direct_writer
from distckpt.state.writing.direct_writer import DirectWriter
from distckpt.state.writing.tensorflow_ops import OpWriter

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
    """Writes a bundle; returns how its files' names begin, and what the writer has returned."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    index = writer.write(str(folder / "b"), keys, specs, list(tensors))
    assert sorted(os.listdir(folder)) == sorted(f"b{suffix}" for suffix in SUFFIXES)
    return str(folder / "b"), index


def check(tmp_path, direct, keys, specs, tensors):
    """Compares the files of both writers, and what ours says of its index with the index."""
    ours, index = written(tmp_path / "ours", direct, keys, specs, tensors)
    theirs, none = written(tmp_path / "theirs", OpWriter(), keys, specs, tensors)
    for suffix in SUFFIXES:
        assert filecmp.cmp(ours + suffix, theirs + suffix, shallow=False), suffix
    assert none is None
    with open(ours + ".index", "rb") as file:
        assert index.content == file.read()
    decoded = read_index(index.content)
    assert (decoded.num_shards, decoded.stored) == (1, tuple(map(as_decoded, index.stored)))


def as_decoded(tensor):
    t = tensor
    dtype = BY_NUMBER[t.dtype].name
    return BundleEntry(t.key, dtype, t.shape, 0, t.offset, t.size, t.crc32c, t.spec)


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
    numbers = range(10_000)
    names = [f"model/layer-{n // 10}/v{n % 10}/.ATTRIBUTES/VARIABLE_VALUE" for n in numbers]
    check(tmp_path, direct, names, [""] * len(names), [tf.constant(float(n)) for n in numbers])


def test_a_tensor_of_more_than_2_gib(tmp_path, direct):
    tensors = [tf.constant(np.resize(np.arange(251, dtype=np.uint8), (2 << 30) + 5)), tf.ones(3)]
    check(tmp_path, direct, ["a", "b"], ["", ""], tensors)


def test_many_strings_are_written_by_tensorflow(tmp_path):
    words = tf.strings.as_string(tf.range(direct_writer._MOST_STRINGS + 1))
    writer = DirectWriter(durable=True)
    writer._other = Unused()
    with pytest.raises(AssertionError, match="the op was used"):
        writer.write(str(tmp_path / "b"), ["x"], [""], [words])
    writer.write(str(tmp_path / "b"), ["x"], [""], [words[1:]])


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


def test_what_does_not_fit_is_an_error_with_the_path(tmp_path, direct):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large.*b\.data") as caught:
            direct.write(str(tmp_path / "b"), ["x"], [""], [tf.ones(1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == ["b.data-00000-of-00001"]  # and no index


def test_a_file_that_exists_is_not_written_to(tmp_path, direct):
    """Two processes that take the same worker's place must not write to one file."""
    direct.write(str(tmp_path / "b"), ["x"], [""], [tf.ones(3)])
    before = (tmp_path / "b.data-00000-of-00001").read_bytes()
    with pytest.raises(FileExistsError):
        direct.write(str(tmp_path / "b"), ["x"], [""], [tf.zeros(3)])
    assert (tmp_path / "b.data-00000-of-00001").read_bytes() == before


@pytest.mark.parametrize("strings", [[], [""], ["a" * 200, "", "b" * 70_000]])
def test_as_much_is_reserved_as_is_written(tmp_path, direct, monkeypatch, strings):
    reserved = []
    monkeypatch.setattr(disk_hints, "preallocate", lambda _, size: reserved.append(size))
    tensors = [tf.constant(strings, tf.string), tf.ones((3, 4))]
    direct.write(str(tmp_path / "b"), ["s", "x"], ["", ""], tensors)
    assert reserved == [(tmp_path / "b.data-00000-of-00001").stat().st_size]


@pytest.mark.parametrize(
    ("keys", "specs"), [(["x", "x"], ["", ""]), (["x", "y"], ["6 2 0,4:-", ""])]
)
def test_a_plan_that_makes_no_sense_leaves_no_index(tmp_path, direct, keys, specs):
    with pytest.raises(ValueError, match=r"twice|shape"):
        direct.write(str(tmp_path / "b"), keys, specs, [tf.ones((3, 2)), tf.ones(2)])
    assert not (tmp_path / "b.index").exists()


def test_without_the_hints_the_files_are_the_same(tmp_path, direct, monkeypatch):
    monkeypatch.setattr(disk_hints, "_function", lambda name: None)
    test_tensors_around_the_size_of_a_chunk(tmp_path, direct)


class Failing:
    """A function of the C library that fails."""

    def __init__(self, code):
        self.code = code

    def __call__(self, *arguments):
        ctypes.set_errno(self.code)
        return -1


def test_after_a_reservation_in_vain_nothing_is_reserved(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_hints, "_function", lambda name: Failing(errno.ENOSPC))
    with open(tmp_path / "f", "wb") as file:
        file.write(b"as if reserved")
        file.flush()
        with pytest.raises(OSError, match="No space left"):
            disk_hints.preallocate(file.fileno(), 1 << 62)
    assert (tmp_path / "f").stat().st_size == 0


def test_a_file_system_without_hints_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_hints, "_function", lambda name: Failing(errno.EOPNOTSUPP))
    with open(tmp_path / "f", "wb") as file:
        disk_hints.preallocate(file.fileno(), 100)
        disk_hints.begin_writeback(file.fileno(), 0, 100)


def test_an_error_of_the_early_writing_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_hints, "_function", lambda name: Failing(errno.EIO))
    with (
        open(tmp_path / "f", "wb") as file,
        pytest.raises(OSError, match="Input/output error"),
    ):
        disk_hints.begin_writeback(file.fileno(), 0, 100)


def test_reserved_space_does_not_change_the_size(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        disk_hints.preallocate(file.fileno(), 1 << 20)
    assert (tmp_path / "f").stat().st_size == 0
