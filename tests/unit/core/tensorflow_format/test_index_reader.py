from __future__ import annotations

import time

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import tensor_bundle_pb2

from distckpt.core.tensorflow_format.index_reader import BundleEntry, header_only_index, read_index
from distckpt.core.tensorflow_format.leveldb_table import read_table, write_table
from distckpt.core.tensorflow_format.slice_encoding import encode_slice_key
from distckpt.errors import CheckpointDamagedError

from ...kit.tf_differences import MISSING_TYPES
from .by_tensorflow import named, save

SMALL_TYPES = [
    "int2", "uint2", "int4", "uint4", "float4_e2m1fn", "float8_e5m2", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"
]  # fmt: skip
NUMBER_TYPES = [
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "bfloat16", "float32", "float64", "complex64", "complex128", "bool", "qint32", "qint16",
    "quint16"
]  # fmt: skip


def all_types():
    tensors = {name: tf.cast(tf.reshape(tf.range(6), [2, 3]), name) for name in NUMBER_TYPES}
    small_types = [name for name in SMALL_TYPES if name not in MISSING_TYPES]
    tensors |= {n: tf.constant(np.ones([3], getattr(ml_dtypes, n))) for n in small_types}
    tensors |= {n: tf.bitcast(tf.constant([1, 2], tf.int8), n) for n in ("qint8", "quint8")}
    tensors["string"] = tf.constant([["a", ""], ["ü" * 200, "\0"]])
    return tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def sliced(folder):
    """The index of a bundle merged from two shards, with two partitioned tensors."""
    w = tf.reshape(tf.range(24, dtype=tf.float32), [6, 4])
    save(folder / "a", ["w", "x"], [w[:2], tf.constant(1)], ["6 4 0,2:-", ""])
    odd = "odd \0\xff name"
    names, tensors = ["w", "y", odd, odd], [w[2:], tf.constant(2), w[:, :1], w[:, 1:]]
    save(folder / "b", names, tensors, ["6 4 2,4:0,4", "", "6 4 -:0,1", "6 4 -:1,3"])
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(folder / "a"), str(folder / "b")],
        destination_prefix=str(folder / "merged"),
    )
    return named(folder / "merged", ".index").read_bytes()


# --- What TensorFlow has written


def test_all_types_are_known(folder):
    tensors = all_types()
    index = read_index(save(folder / "types", list(tensors), list(tensors.values())))
    assert index.num_shards == 1
    found = {entry.key: (entry.dtype, entry.shape) for entry in index.entries}
    assert found == {n: (t.dtype.name, tuple(t.shape)) for n, t in tensors.items()}
    assert {t.dtype.name for t in tensors.values()} == set(tensors)


def test_entries_follow_one_another_in_the_data_file(folder):
    tensors = all_types()
    index = read_index(save(folder / "types", list(tensors), list(tensors.values())))
    position = 0
    for entry in sorted(index.entries, key=lambda e: e.offset):
        assert (entry.shard, entry.offset) == (0, position)
        position += entry.size
    assert position == len(named(folder / "types", ".data-00000-of-00001").read_bytes())


@pytest.mark.parametrize("shape", [[], [0], [3, 0, 2], [1], [2, 3, 4]])
def test_shapes_are_those_of_the_tensors(folder, shape):
    (entry,) = read_index(save(folder / "s", ["x"], [tf.zeros(shape)])).entries
    assert entry.shape == tuple(shape)
    assert entry.size == 4 * int(np.prod(shape))


def test_the_checkpoint_of_an_object_graph_is_read(folder):
    iterator = iter(tf.data.Dataset.range(5).shuffle(3))
    checkpoint = tf.train.Checkpoint(iterator=iterator, v=tf.Variable([1.5, 2.5]))
    prefix = checkpoint.write(str(folder / "objects"))
    index = read_index(named(folder / "objects", ".index").read_bytes())
    assert {e.key: list(e.shape) for e in index.tensors} == dict(tf.train.list_variables(prefix))
    types = {e.key: e.dtype for e in index.entries}
    assert types["iterator/.ATTRIBUTES/ITERATOR_STATE"] == "variant"
    assert types["_CHECKPOINTABLE_OBJECT_GRAPH"] == "string"


@pytest.mark.parametrize("name", ["ü", "a b", "a\0b", "\0", "\1", "x" * 500])
def test_odd_names_are_kept(folder, name):
    (entry,) = read_index(save(folder / "n", [name], [tf.zeros([2])])).entries
    assert (entry.key, entry.spec, entry.slices) == (name, "", ())


def test_a_name_that_is_not_unicode_can_be_told_from_others(folder):
    index = read_index(save(folder / "n", [b"\xff", b"\xfe"], [tf.zeros([2])] * 2))
    keys = [entry.key.encode("utf-8", "surrogateescape") for entry in index.entries]
    assert keys == [b"\xfe", b"\xff"]


def test_shards_are_counted(sliced):
    index = read_index(sliced)
    assert index.num_shards == 2
    assert {e.key: e.shard for e in index.stored if not e.spec} == {"x": 0, "y": 1}


# --- Slices


def test_a_partitioned_tensor_lists_its_slices(sliced):
    tensors = {entry.key: entry for entry in read_index(sliced).tensors}
    assert sorted(tensors) == ["odd \0\xff name", "w", "x", "y"]
    assert tensors["w"].shape == (6, 4)
    assert tensors["w"].slices == ("6 4 0,2:-", "6 4 2,4:0,4")
    assert tensors["x"].slices == ()


def test_a_slice_says_of_which_tensor_it_is(sliced):
    slices = {(e.key, e.spec): e for e in read_index(sliced).stored if e.spec}
    assert {identity: (e.shape, e.shard, e.size) for identity, e in slices.items()} == {
        ("w", "6 4 0,2:-"): ((2, 4), 0, 32),
        ("w", "6 4 2,4:0,4"): ((4, 4), 1, 64),
        ("odd \0\xff name", "6 4 -:0,1"): ((6, 1), 1, 24),
        ("odd \0\xff name", "6 4 -:1,3"): ((6, 3), 1, 72),
    }
    assert {e.dtype for e in slices.values()} == {"float32"}


def test_a_spec_can_be_given_to_restorev2(folder, sliced):
    for entry in read_index(sliced).stored:
        (value,) = tf.raw_ops.RestoreV2(
            prefix=str(folder / "merged"),
            tensor_names=[entry.key],
            shape_and_slices=[entry.spec],
            dtypes=[entry.dtype],
        )
        assert tuple(value.shape) == entry.shape


def test_the_index_of_one_shard_has_only_its_own_slices(folder):
    index = read_index(save(folder / "one", ["w"], [tf.zeros([2, 4])], ["6 4 0,2:-"]))
    assert index.tensors[0].slices == ("6 4 0,2:-",)
    assert [e.spec for e in index.stored] == ["6 4 0,2:-"]


def test_a_tensor_with_the_name_of_a_slice_that_nobody_lists_is_a_tensor(folder):
    name = encode_slice_key(b"w", ((0, 2),)).decode("latin-1")
    index = read_index(save(folder / "n", ["w", name], [tf.zeros([3])] * 2))
    assert sorted(e.key for e in index.tensors) == sorted(["w", name])


# --- Contradictions under right checksums

HEADER = tensor_bundle_pb2.BundleHeaderProto(num_shards=2, version={"producer": 1})


def proto(dtype=1, dims=(2,), shard_id=1, size=8, slices=(), **fields):
    message = tensor_bundle_pb2.BundleEntryProto(
        dtype=dtype, shard_id=shard_id, size=size, **fields
    )
    for dim in dims:
        message.shape.dim.add(size=dim)
    for extents in slices:
        added = message.slices.add()
        for extent in extents:
            added.extent.add(
                **({} if extent is None else {"start": extent[0], "length": extent[1]})
            )
    return message


def made(header=HEADER, /, **entries):
    pairs = {b"": header} | {name.encode("latin-1"): value for name, value in entries.items()}
    raw = {k: v if isinstance(v, bytes) else v.SerializeToString() for k, v in pairs.items()}
    return write_table(sorted(raw.items()))


def header(**fields):
    return tensor_bundle_pb2.BundleHeaderProto(**{"num_shards": 1, **fields})


def key_of(name, *extents):
    return encode_slice_key(name, extents).decode("latin-1")


def test_the_hand_made_indexes_of_this_test_are_right():
    data = made(
        x=proto(offset=3, crc32c=9),
        w=proto(dims=[3, 2], slices=[[(0, 2), None]], size=0, shard_id=0),
        **{key_of(b"w", (0, 2), None): proto(dims=[2, 2], size=16)},
    )
    assert read_index(data).entries == (
        BundleEntry("w", "float32", (2, 2), 1, 0, 16, 0, spec="3 2 0,2:-"),
        BundleEntry("w", "float32", (3, 2), 0, 0, 0, 0, slices=("3 2 0,2:-",)),
        BundleEntry("x", "float32", (2,), 1, 3, 8, 9),
    )


HALF = {key_of(b"w", (0, 2)): proto(dims=[2], size=8)}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (write_table([]), "no header"),
        (write_table([(b"x", proto().SerializeToString())]), "no header"),
        (made(b"\xff\xff"), "header makes no sense"),
        (made(header(endianness=1)), "big-endian"),
        (made(header(version={"producer": 9, "min_consumer": 2})), "newer TensorFlow"),
        (made(header(version={"bad_consumers": [1]})), "newer TensorFlow"),
        (made(header(num_shards=0)), "counts 0 data files"),
        (made(header(num_shards=-1)), "counts -1 data files"),
        (made(header(num_shards=2**31 - 1)), "counts 2147483647 data files"),
        (made(x=b"\xff\xff"), "'x' makes no sense"),
        (made(x=b""), "data type 0 is not known"),
        (made(x=proto(dtype=77)), "data type 77 is not known"),
        (made(x=proto(dtype=101)), "data type 101 is not known"),
        (made(x=proto(dtype=-1)), "data type -1 is not known"),
        (made(x=proto(shard_id=2)), "points outside"),
        (made(x=proto(shard_id=-1)), "points outside"),
        (made(x=proto(offset=-1)), "points outside"),
        (made(x=proto(dtype=7, size=-1)), "points outside"),
        (made(x=proto(size=9)), "9 bytes instead of 8"),
        (made(x=proto(dims=[2, -1])), "shape is not known"),
        (
            made(x=tensor_bundle_pb2.BundleEntryProto(dtype=1, shape={"unknown_rank": True})),
            "shape",
        ),
        (made(x=proto(dims=[2**62, 2**62], size=0)), "too large"),
        (made(x=proto(dims=[1] * 255, size=4)), "255 dimensions"),
        (made(w=proto(dims=[3], slices=[[(0, 2)]])), "'3 0,2', which is missing"),
        (made(w=proto(dims=[3], slices=[[None]])), "'3 -', which is missing"),
        (made(w=proto(dims=[3], slices=[[]])), "slice of 0 dimensions of a tensor of 1"),
        (made(w=proto(dims=[3], slices=[[(2, 2)]])), "slice from 2 of length 2"),
        (made(w=proto(dims=[3], slices=[[(-1, 2)]])), "slice from -1"),
        (made(w=proto(dims=[3], slices=[[(0, 2)]] * 2), **HALF), "a slice twice"),
        (made(w=proto(dtype=3, dims=[3], slices=[[(0, 2)]]), **HALF), "another type or shape"),
        (
            made(w=proto(dims=[3], slices=[[(0, 2)]]), **{next(iter(HALF)): proto(dims=[2, 1])}),
            "sha",
        ),
    ],
)
def test_a_contradiction_is_named(data, why):
    with pytest.raises(CheckpointDamagedError, match=why):
        read_index(data)


# --- Damage


def test_damage_is_an_error_wherever_it_is(sliced):
    for position in range(len(sliced)):
        damaged = bytearray(sliced)
        damaged[position] ^= 0x41
        for wrong in (bytes(damaged), sliced[:position], sliced[position + 1 :]):
            with pytest.raises(CheckpointDamagedError):
                read_index(wrong)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_damage_under_right_checksums_is_read_or_refused_and_nothing_else(sliced, data):
    pairs = [(bytearray(key), bytearray(value)) for key, value in read_table(sliced)]
    for _ in range(data.draw(st.integers(1, 4))):
        target = data.draw(st.sampled_from([part for pair in pairs for part in pair if part]))
        target[data.draw(st.integers(0, len(target) - 1))] = data.draw(st.integers(0, 255))
    table = write_table(sorted({bytes(key): bytes(value) for key, value in pairs}.items()))
    try:
        index = read_index(table)
    except CheckpointDamagedError:
        return
    for entry in index.stored:
        assert 0 <= entry.shard < index.num_shards
        assert entry.offset >= 0
        assert entry.size >= 0


# --- A shard without tensors


def test_an_index_without_tensors_counts_one_data_file():
    index = read_index(header_only_index())
    assert (index.num_shards, index.entries) == (1, ())


def test_its_header_is_the_one_that_tensorflow_writes(folder):
    pairs = read_table(save(folder / "x", ["x"], [tf.zeros([])]))
    assert read_table(header_only_index()) == pairs[:1]


# --- Speed


def test_the_time_of_reading_grows_with_the_entries_and_no_faster():
    def seconds(count):
        entries = {
            f"model/layer-{i:05d}/.ATTRIBUTES/VARIABLE_VALUE": proto(offset=8 * i)
            for i in range(count)
        }
        data, best = made(**entries), float("inf")
        for _ in range(10):
            started = time.thread_time()
            assert len(read_index(data).entries) == count
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(10_000) < 50 * seconds(1_000)
