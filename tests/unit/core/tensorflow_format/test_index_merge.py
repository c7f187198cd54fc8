from __future__ import annotations

import pytest
import tensorflow as tf

from distckpt.core.tensorflow_format.index_merge import merge_indexes
from distckpt.core.tensorflow_format.index_reader import header_only_index, read_index
from distckpt.errors import CheckpointDamagedError

from .by_tensorflow import named, save

W = tf.reshape(tf.range(24, dtype=tf.float32), [6, 4])
SHARDS = [
    (["w", "x"], [W[:2], tf.constant(1)], ["6 4 0,2:-", ""]),
    (["w", "y"], [W[4:], tf.constant(["a", "b"])], ["6 4 4,2:-", ""]),
    (["w", "a", "n\0"], [W[2:4], tf.zeros([0]), tf.zeros([2])], ["6 4 2,2:0,4", "", ""]),
]


def save_shards(folder):
    return [save(folder / f"part-{i}", *shard) for i, shard in enumerate(SHARDS)]


def merge_by_tensorflow(folder, count):
    prefixes = [str(folder / f"part-{i}") for i in range(count)]
    target = folder / "merged"
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(target))
    return named(target, ".index").read_bytes()


def move_into_place(folder, parts, merged):
    """Does what the caller of `merge_indexes` has to do; returns the checkpoint's path."""
    for number, part in enumerate(parts):
        data = named(folder / part, ".data-00000-of-00001")
        data.rename(folder / f"ckpt.data-{number:05d}-of-{len(parts):05d}")
    named(folder / "ckpt", ".index").write_bytes(merged)
    return str(folder / "ckpt")


def add_empty_shard(folder, number):
    named(folder / f"part-{number}", ".data-00000-of-00001").write_bytes(b"")
    named(folder / f"part-{number}", ".index").write_bytes(header_only_index())


def check_values(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    assert set(reader.get_variable_to_shape_map()) == {"w", "x", "y", "a", "n\0"}
    assert (reader.get_tensor("w") == W.numpy()).all()
    assert reader.get_tensor("x") == 1
    assert list(reader.get_tensor("y")) == [b"a", b"b"]
    assert reader.get_tensor("a").shape == (0,)


def test_the_result_is_the_one_of_tensorflow(tmp_path):
    parts = save_shards(tmp_path)
    assert merge_indexes(parts) == merge_by_tensorflow(tmp_path, len(parts))


def test_a_large_result_is_the_one_of_tensorflow(tmp_path):
    names = [f"model/layer-{i:05d}/.ATTRIBUTES/VARIABLE_VALUE" for i in range(8000)]
    value = tf.zeros([3])
    parts = [
        save(tmp_path / f"part-{i}", names[i::3], [value] * len(names[i::3])) for i in range(3)
    ]
    assert merge_indexes(parts) == merge_by_tensorflow(tmp_path, 3)


def test_one_part_stays_as_it_is(tmp_path):
    (part, *_) = save_shards(tmp_path)
    assert merge_indexes([part]) == part


def test_tensorflow_reads_the_result(tmp_path):
    merged = merge_indexes(save_shards(tmp_path))
    check_values(move_into_place(tmp_path, ["part-0", "part-1", "part-2"], merged))


@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_empty_shard_gives_one_more_data_file(tmp_path, place):
    parts = save_shards(tmp_path)
    files = ["part-0", "part-1", "part-2"]
    add_empty_shard(tmp_path, 3)
    parts.insert(place, header_only_index())
    files.insert(place, "part-3")

    merged = merge_indexes(parts)

    assert read_index(merged).num_shards == 4
    check_values(move_into_place(tmp_path, files, merged))


def test_tensorflows_own_merge_does_not_name_the_data_files_after_an_empty_shard(tmp_path):
    """Why `merge_indexes` exists: the header counts four files, the names three."""
    save_shards(tmp_path)
    add_empty_shard(tmp_path, 3)
    merged = merge_by_tensorflow(tmp_path, 4)
    assert read_index(merged).num_shards == 4
    assert len(list(tmp_path.glob("merged.data-*-of-00003"))) == 3
    with pytest.raises(Exception, match=r"merged\.data-00000-of-00004"):
        tf.train.load_checkpoint(str(tmp_path / "merged")).get_tensor("x")


def test_a_merged_index_can_be_merged_again(tmp_path):
    a, b, c = save_shards(tmp_path)
    assert merge_indexes([merge_indexes([a, b]), c]) == merge_indexes([a, b, c])


@pytest.mark.parametrize(
    "second",
    [
        (["x"], [tf.constant(2)], [""]),  # the same tensor
        (["w"], [W[:2]], ["6 4 0,2:-"]),  # the same slice
        (["w"], [W], [""]),  # whole, and in slices
        (["w"], [tf.zeros([4, 3])], ["6 3 2,4:-"]),  # another shape
        (["w"], [tf.zeros([4, 4], tf.int32)], ["6 4 2,4:-"]),  # another type
    ],
)
def test_shards_that_contradict_one_another_are_refused(tmp_path, second):
    parts = [save(tmp_path / "a", *SHARDS[0]), save(tmp_path / "b", *second)]
    with pytest.raises(CheckpointDamagedError, match="of shard 1 cannot be merged"):
        merge_indexes(parts)


def test_a_damaged_part_is_refused(tmp_path):
    good, *_ = save_shards(tmp_path)
    with pytest.raises(CheckpointDamagedError):
        merge_indexes([good, good[:-1]])
