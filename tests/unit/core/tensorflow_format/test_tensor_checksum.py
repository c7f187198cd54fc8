from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.core.tensorflow_format.index_reader import BundleEntry, read_index
from distckpt.core.tensorflow_format.tensor_checksum import verify_entry
from distckpt.errors import CheckpointDamagedError

CHUNK_SIZES = [16, 17, 100, 8 << 20]


class File:
    """A data file that counts what is read of it."""

    def __init__(self, data):
        self.data = bytes(data)
        self.most = 0
        self.total = 0

    def read(self, offset, size):
        assert offset >= 0
        assert size > 0
        self.most = max(self.most, size)
        piece = self.data[offset : offset + size]
        self.total += len(piece)
        return piece


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Entries of many types and the data file they are in."""
    prefix = str(tmp_path_factory.mktemp("bundle") / "b")
    iterator = iter(tf.data.Dataset.range(100).shuffle(30).batch(2))
    next(iterator)
    variables = {
        "floats": tf.Variable(np.random.default_rng(1).normal(size=[50, 3])),
        "halves": tf.Variable(tf.ones([7], tf.bfloat16)),
        "small": tf.Variable(np.ones([3], ml_dtypes.float8_e5m2)),
        "complex": tf.Variable([1 + 2j], dtype=tf.complex128),
        "scalar": tf.Variable(3),
        "truth": tf.Variable([True, False]),
        "empty": tf.Variable(tf.zeros([3, 0])),
        "texts": tf.Variable([["", "a"], ["ü" * 300, "\0" * 20000]]),
        "text": tf.Variable("one"),
        "no_text": tf.Variable(tf.zeros([0], tf.string)),
    }
    tf.train.Checkpoint(iterator=iterator, **variables).write(prefix)
    with (
        open(prefix + ".index", "rb") as index,
        open(prefix + ".data-00000-of-00001", "rb") as data,
    ):
        entries = {entry.key.split("/")[0]: entry for entry in read_index(index.read()).entries}
        return entries, data.read()


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_what_tensorflow_has_written_is_right(bundle, chunk_size):
    entries, data = bundle
    assert {"string", "variant", "float64", "bfloat16"} <= {e.dtype for e in entries.values()}
    for entry in entries.values():
        file = File(data)
        verify_entry(entry, file.read, chunk_size=chunk_size)
        assert file.total == entry.size
        assert file.most <= chunk_size


def test_each_changed_byte_is_noticed(bundle):
    entries, data = bundle
    for name in ("scalar", "truth", "complex", "halves", "text", "iterator"):
        entry = entries[name]
        for position in range(entry.offset, entry.offset + min(entry.size, 400)):
            damaged = bytearray(data)
            damaged[position] ^= 1
            with pytest.raises(CheckpointDamagedError, match=f"{name}.* in data file 0, bytes "):
                verify_entry(entry, File(damaged).read)


@pytest.mark.parametrize("name", ["floats", "texts", "iterator"])
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_each_truncation_is_noticed(bundle, name, chunk_size):
    entries, data = bundle
    entry = entries[name]
    for size in {0, 1, entry.size // 2, entry.size - 1}:
        cut = data[: entry.offset + size]
        with pytest.raises(CheckpointDamagedError, match=f"the file ends at byte {len(cut)}"):
            verify_entry(entry, File(cut).read, chunk_size=chunk_size)


def test_the_two_checksums_are_named(bundle):
    entries, data = bundle
    entry = entries["scalar"]._replace(crc32c=7)
    with pytest.raises(CheckpointDamagedError, match=r"checksum is 0x\w{8}, not 0x00000007"):
        verify_entry(entry, File(data).read)


def test_a_slice_is_named(bundle):
    entries, data = bundle
    entry = entries["scalar"]._replace(crc32c=7, spec="6 0,1")
    with pytest.raises(CheckpointDamagedError, match=r"\(slice '6 0,1'\)"):
        verify_entry(entry, File(data).read)


def test_a_text_of_another_length_is_told_by_the_checksum_of_the_lengths(bundle):
    entries, data = bundle
    entry = entries["text"]
    damaged = bytearray(data)
    damaged[entry.offset] = 2
    with pytest.raises(CheckpointDamagedError, match="the checksum of its lengths"):
        verify_entry(entry, File(damaged).read)


def test_an_element_of_a_variant_is_named(bundle):
    entries, data = bundle
    entry = entries["iterator"]
    damaged = bytearray(data)
    damaged[entry.offset + entry.size - 1] ^= 1
    last = entry.shape[0] - 1
    with pytest.raises(CheckpointDamagedError, match=f"the checksum of element {last} is"):
        verify_entry(entry, File(damaged).read)


def test_errors_of_the_storage_are_passed_on(bundle):
    entries, _ = bundle

    def read(offset, size):
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError):
        verify_entry(entries["scalar"], read)


def hostile(dtype, shape, size):
    return BundleEntry("x", dtype, shape, 0, 0, size, 0)


@pytest.mark.parametrize(
    "entry",
    [
        hostile("float32", (2**60,), 2**62),
        hostile("string", (2**60,), 2**62),
        hostile("string", (2**60,), 100),
        hostile("string", (), 2**62),
        hostile("variant", (2**60,), 2**62),
        hostile("variant", (2**60,), 100),
        hostile("resource", (), 2**62),
    ],
)
@pytest.mark.parametrize("content", [b"\0" * 1000, b"\xff" * 1000, b"\x80" * 1000, b""])
def test_a_hostile_size_reads_no_more_than_there_is(entry, content):
    file = File(content)
    with pytest.raises(CheckpointDamagedError):
        verify_entry(entry, file.read, chunk_size=64)
    assert file.most <= 64
    assert file.total <= len(content) + 64


@pytest.mark.parametrize("dtype", ["string", "variant"])
def test_an_element_longer_than_the_entry_is_refused(dtype):
    length = b"\xff" * 8 + b"\x7f"  # 2**63 - 1
    with pytest.raises(CheckpointDamagedError):
        verify_entry(hostile(dtype, (), 50), File(length + b"\0" * 50).read)


@pytest.mark.parametrize("dtype", ["string", "variant"])
def test_a_length_of_more_than_64_bits_is_refused(dtype):
    length = b"\xff" * 9 + b"\x7f"
    with pytest.raises(CheckpointDamagedError, match="too long a number"):
        verify_entry(hostile(dtype, (), 50), File(length + b"\0" * 50).read)


def test_bytes_behind_the_last_element_are_noticed(bundle):
    entries, data = bundle
    entry = entries["text"]
    with pytest.raises(CheckpointDamagedError, match="1 bytes more than its elements take"):
        verify_entry(entry._replace(size=entry.size + 1), File(data + b"\0").read)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damage_is_an_error_of_ours_and_nothing_else(bundle, data):
    entries, content = bundle
    entry = entries[data.draw(st.sampled_from(["texts", "text", "no_text", "iterator", "floats"]))]
    damaged = bytearray(content)
    position = data.draw(st.integers(0, min(entry.size, 200) - 1))
    old = damaged[entry.offset + position]
    damaged[entry.offset + position] = data.draw(st.integers(0, 255).filter(lambda b: b != old))
    with pytest.raises(CheckpointDamagedError):
        verify_entry(entry, File(damaged).read, chunk_size=data.draw(st.sampled_from(CHUNK_SIZES)))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.binary(max_size=300), max_size=30))
def test_all_texts_are_right_as_tensorflow_writes_them(tmp_path_factory, texts):
    prefix = str(tmp_path_factory.mktemp("texts") / "b")
    tensor = tf.constant(texts, tf.string)
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["x"], shape_and_slices=[""], tensors=[tensor])
    with (
        open(prefix + ".index", "rb") as index,
        open(prefix + ".data-00000-of-00001", "rb") as data,
    ):
        (entry,) = read_index(index.read()).entries
        verify_entry(entry, File(data.read()).read, chunk_size=16)
