"""Tensors are read as TensorFlow reads them, and damage is found."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from distckpt.core.tensorflow_format.leveldb_table import read_table, write_table
from distckpt.errors import CheckpointDamagedError
from distckpt.state.loading import checkpoint_reads
from distckpt.state.loading.checkpoint_reads import LARGE, Wanted, read_tensors

from .arrays import DTYPES, SHAPES, array

NUMERIC = [name for name in DTYPES if name != "string"]


def save(path, tensors, specs=None):
    """Writes tensors as TensorFlow does; returns what to ask for."""
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=str(path),
            tensor_names=list(tensors),
            shape_and_slices=specs or [""] * len(tensors),
            tensors=list(tensors.values()),
        )
    return [Wanted(key, t.dtype, tuple(t.shape)) for key, t in tensors.items()]


def save_slices(path, whole, specs):
    """Writes the slices of a tensor `whole` as one partitioned tensor."""
    pieces = []
    for number, (spec, part) in enumerate(specs):
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=f"{path}-{number}",
                tensor_names=["w"],
                shape_and_slices=[spec],
                tensors=[part],
            )
        pieces.append(f"{path}-{number}")
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=pieces, destination_prefix=str(path))
    return [Wanted("w", whole.dtype, tuple(whole.shape))]


def read(path, wanted):
    found = dict(read_tensors(str(path), wanted))
    assert sorted(found) == list(range(len(wanted)))
    return [found[number] for number in range(len(wanted))]


@pytest.mark.parametrize("dtype", NUMERIC)
def test_all_types_and_shapes(tmp_path, dtype):
    rows = 2 * LARGE // (16 * tf.as_dtype(dtype).size)
    shapes = [*SHAPES, (rows, 16), (rows * 16 + 1,)]
    tensors = {f"t{n}": tf.constant(array(dtype, s, n)) for n, s in enumerate(shapes)}
    wanted = save(tmp_path / "ckpt", tensors)
    for tensor, found in zip(tensors.values(), read(tmp_path / "ckpt", wanted), strict=True):
        assert found.dtype == tensor.dtype
        assert found.shape == tensor.shape
        assert found.numpy().tobytes() == tensor.numpy().tobytes()


def test_only_large_tensors_of_usual_types_are_read_directly(tmp_path, monkeypatch):
    tensors = {
        "small": tf.zeros((10,)),
        "large": tf.zeros((LARGE,), tf.uint8),
        "rare": tf.constant(array("float8_e5m2", (LARGE,), 1)),
        "not quite": tf.zeros((LARGE - 1,), tf.uint8),
    }
    wanted = save(tmp_path / "ckpt", tensors)
    assert list(checkpoint_reads._direct_pieces(str(tmp_path / "ckpt"), wanted)) == [1]
    assert not checkpoint_reads._direct_pieces(f"ram://{tmp_path}/ckpt", wanted)
    monkeypatch.setattr("sys.byteorder", "big")
    assert not checkpoint_reads._direct_pieces(str(tmp_path / "ckpt"), wanted)


ROWS = LARGE // 4


@pytest.mark.parametrize(
    ("cuts", "direct"),
    [
        ([(0, 2, "-"), (2, ROWS - 2, "-")], True),
        ([(5, ROWS - 5, "-"), (0, 5, "-")], True),
        ([(0, ROWS, "0,1"), (0, ROWS, "1,1")], False),
    ],
    ids=["rows", "rows in another order", "columns"],
)
def test_slices(tmp_path, cuts, direct):
    whole = tf.constant(np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2))
    specs = []
    for start, length, columns in cuts:
        part = whole[start : start + length]
        if columns != "-":
            part = part[:, int(columns[0]) : int(columns[0]) + 1]
        specs.append((f"{ROWS} 2 {start},{length}:{columns}", part))
    path = tmp_path / "ckpt"
    wanted = save_slices(path, whole, specs)
    assert bool(checkpoint_reads._direct_pieces(str(path), wanted)) == direct
    assert read(path, wanted)[0].numpy().tolist() == whole.numpy().tolist()


def test_slices_that_leave_rows_out_are_left_to_tensorflow(tmp_path):
    whole = tf.zeros((ROWS, 2))
    part = whole[: ROWS - 1]
    wanted = save_slices(tmp_path / "ckpt", whole, [(f"{ROWS} 2 0,{ROWS - 1}:-", part)])
    assert not checkpoint_reads._direct_pieces(str(tmp_path / "ckpt"), wanted)
    with pytest.raises(tf.errors.OpError):
        read(tmp_path / "ckpt", wanted)


@pytest.mark.parametrize("size", [LARGE, 3 * LARGE + 1, 5 << 20])
@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_byte_is_found(tmp_path, size, place):
    wanted = save(tmp_path / "ckpt", {"w": tf.zeros((size,), tf.uint8)})
    data = tmp_path / "ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[place] ^= 1
    data.write_bytes(content)
    with pytest.raises(CheckpointDamagedError, match=r"'w' is damaged in .*0001, bytes 0 to"):
        read(tmp_path / "ckpt", wanted)


def test_a_file_that_ends_too_early_is_found(tmp_path):
    wanted = save(tmp_path / "ckpt", {"w": tf.zeros((2 << 20,), tf.uint8)})
    data = tmp_path / "ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CheckpointDamagedError, match="ends within tensor 'w'"):
        read(tmp_path / "ckpt", wanted)


def test_a_missing_file_is_tensorflows_error(tmp_path):
    wanted = save(tmp_path / "ckpt", {"w": tf.zeros((LARGE,))})
    (tmp_path / "ckpt.data-00000-of-00001").unlink()
    with pytest.raises(tf.errors.NotFoundError):
        read(tmp_path / "ckpt", wanted)


@pytest.mark.parametrize("of", ["data", "index"])
def test_a_file_that_cannot_be_opened_is_left_to_tensorflow(tmp_path, monkeypatch, of):
    """Too many files may be open: that is no damage, for which an older one would be restored."""
    whole = tf.random.normal((LARGE,))
    wanted = save(tmp_path / "ckpt", {"w": whole})

    def fails(name, *args, **options):
        if f".{of}" in name:
            raise OSError(errno.EMFILE, "Too many open files")
        return open(name, *args, **options)

    monkeypatch.setattr(checkpoint_reads, "open", fails, raising=False)
    assert read(tmp_path / "ckpt", wanted)[0].numpy().tolist() == whole.numpy().tolist()


def test_an_index_that_only_tensorflow_can_read(tmp_path):
    """Written on a big-endian machine."""
    whole = tf.constant(np.arange(LARGE) % 251, tf.uint8)
    wanted = save(tmp_path / "ckpt", {"w": whole})
    index = tmp_path / "ckpt.index"
    (name, encoded), *entries = read_table(index.read_bytes())
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(encoded)
    header.endianness = header.BIG
    index.write_bytes(write_table([(name, header.SerializeToString()), *entries]))
    assert read(tmp_path / "ckpt", wanted)[0].numpy().tolist() == whole.numpy().tolist()


def test_a_variable_takes_the_buffer_over(tmp_path):
    wanted = save(tmp_path / "ckpt", {"w": tf.ones((LARGE,))})
    ((_, tensor),) = read_tensors(str(tmp_path / "ckpt"), wanted)
    variable = tf.Variable(tf.zeros((LARGE,)))
    place = tensor._numpy().ctypes.data
    variable.assign(tensor)
    del tensor
    variable.assign_add(tf.ones((LARGE,)))
    assert variable.numpy()[[0, -1]].tolist() == [2.0, 2.0]
    assert variable.read_value()._numpy().ctypes.data == place


def test_few_bytes_and_tensors_are_read_in_advance():
    wanted = [Wanted(str(n), tf.float32, (1000,)) for n in range(10_000)]
    batches = list(checkpoint_reads._batches(wanted, range(10_000)))
    assert [position for batch in batches for position in batch] == list(range(10_000))
    for batch in batches:
        assert sum(wanted[position].size for position in batch) <= 16 << 20
        assert len(batch) <= 1000
    large = [Wanted("a", tf.float32, (5 << 20,)), Wanted("b", tf.float32, (5 << 20,))]
    assert list(checkpoint_reads._batches(large, [0, 1])) == [[0], [1]]
