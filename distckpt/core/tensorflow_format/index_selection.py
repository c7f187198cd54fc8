"""Makes the index of a bundle with all tensors whole and in one data file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from distckpt.core.tensorflow_format import bundle_proto as proto
from distckpt.core.tensorflow_format.leveldb_table import read_table, write_table


class Place(NamedTuple):
    """The place of a tensor in the data file: offset, size in bytes, and masked CRC32C."""

    offset: int
    size: int
    crc32c: int


def single_index(index: bytes, places: Mapping[str, Place]) -> bytes:
    """Returns the index of a bundle of one data file with some tensors of another bundle.

    Args:
      index: The ``.index`` file of the other bundle, which `index_reader.read_index` has read.
      places: The new places of the tensors, by key (`BundleEntry.key`). Other tensors are left out,
        and so are the entries of slices: a partitioned tensor is whole now.
    """
    pairs = read_table(index)
    header = proto.Header.FromString(pairs[0][1])
    header.num_shards = 1
    rows = [(b"", header.SerializeToString())]
    for key, value in pairs[1:]:
        place = places.get(key.decode("utf-8", "surrogateescape"))
        if place is None:
            continue
        entry = proto.Entry.FromString(value)
        del entry.slices[:]
        entry.shard_id = 0
        entry.offset, entry.size, entry.crc32c = place
        rows.append((key, entry.SerializeToString()))
    return write_table(rows)
