"""Merges the indexes of several tensor bundles into the index of one.

The result equals that of TensorFlow's ``MergeV2Checkpoints`` byte for byte, but nothing is renamed:
the caller renames the data files in an order that survives a crash, with flushes between. Unlike
TensorFlow's op, this function counts a shard without tensors (`header_only_index`). The op counts
such a shard in the header but not in the names that it gives to the data files, so the result is
unreadable.

Source: ``MergeBundles`` in ``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from distckpt.core.tensorflow_format import bundle_proto as proto
from distckpt.core.tensorflow_format.index_reader import read_index
from distckpt.core.tensorflow_format.leveldb_table import damaged, read_table, write_table
from distckpt.errors import CheckpointDamagedError


def merge_indexes(indexes: Sequence[bytes]) -> bytes:
    """Returns the index of the bundle that has all tensors of several bundles.

    The data files of the result are those of the parts, one part after the other: they must be
    renamed to ``….data-00000-of-0000N`` and so on, where N is their number.

    Args:
      indexes: The ``.index`` files of the parts, at least one.

    Raises:
      CheckpointDamagedError: An index is damaged, or two have the same tensor or slice.
    """
    merged: dict[bytes, Any] = {}
    header: Any = None
    shards = 0
    for number, index in enumerate(indexes):
        first_shard, shards = shards, shards + read_index(index).num_shards
        pairs = read_table(index)
        header = header or proto.Header.FromString(pairs[0][1])
        for key, value in pairs[1:]:
            _add(merged, key, _entry(value, first_shard), number)
    header.num_shards = shards
    rows = [(key, merged[key].SerializeToString()) for key in sorted(merged)]
    return write_table([(b"", header.SerializeToString()), *rows])


def _entry(value: bytes, first_shard: int) -> Any:
    """Returns an entry with its data file counted from `first_shard`."""
    try:
        entry = proto.Entry.FromString(value)
    except DecodeError as error:  # `read_index` has parsed it before
        raise damaged(f"an entry makes no sense ({error})") from None
    entry.shard_id += first_shard
    return entry


def _add(merged: dict[bytes, Any], key: bytes, entry: Any, number: int) -> None:
    """Adds an entry of part `number`; the slices of one tensor may come from several parts."""
    known = merged.setdefault(key, entry)
    if known is entry:
        return
    same = (known.dtype, known.shape) == (entry.dtype, entry.shape)
    slices = [*known.slices, *entry.slices]
    if not (same and known.slices and entry.slices and len(set(slices)) == len(slices)):
        name = key.decode("utf-8", "backslashreplace")
        raise CheckpointDamagedError(
            f"Tensor {name!r} of shard {number} cannot be merged: an earlier shard has it, too."
        )
    known.slices.extend(entry.slices)
