"""Reads the ``.index`` of a tensor bundle, the format of a TensorFlow V2 checkpoint.

The index is a table (see `leveldb_table`). Its first key is empty and has a header; every
other one has a tensor's entry: type, shape, and the place of its bytes: data file and offset. A
partitioned tensor's entry has no bytes but lists slices, each with an entry of its own (see
`slice_encoding`). All entries have the masked CRC32C that the writer computed from memory
while writing.

Source: ``BundleReader`` in ``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from google.protobuf.message import DecodeError

from distckpt.core.tensorflow_format import bundle_proto as proto
from distckpt.core.tensorflow_format.dtypes import BY_NUMBER
from distckpt.core.tensorflow_format.leveldb_table import damaged, read_table, write_table
from distckpt.core.tensorflow_format.slice_encoding import (
    Extents,
    decode_slice_key,
    format_spec,
    slice_shape,
)
from distckpt.errors import CheckpointDamagedError

_MOST_SHARDS = 99_999  # five digits in the names of data files


class BundleEntry(NamedTuple):
    """One entry of an index.

    Attributes:
      key: The checkpoint key; bytes that are not UTF-8 are kept as surrogates (PEP 383).
      dtype: TensorFlow's name of the type, e.g. "float32", "string", "variant".
      shape: The dimensions; if `spec`, those of the slice.
      shard: The number of the data file.
      offset: Where its bytes begin there.
      size: How many bytes it takes there.
      crc32c: Their masked CRC32C (see `verify_entry` for strings and variants).
      spec: The slice spec, as "6 4 0,2:-", if the bytes are one slice of tensor `key`; else "".
      slices: For a partitioned tensor: the specs of its slices. It then has no bytes of its own,
        and shard, offset, size and crc32c mean nothing.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    spec: str = ""
    slices: tuple[str, ...] = ()


class Index(NamedTuple):
    """The content of an index.

    Attributes:
      num_shards: The number of data files.
      entries: All entries in the order of their stored keys: slices first, then tensors.
    """

    num_shards: int
    entries: tuple[BundleEntry, ...]

    @property
    def tensors(self) -> tuple[BundleEntry, ...]:
        """The tensors, by key, as a plain reader sees them."""
        return tuple(entry for entry in self.entries if not entry.spec)

    @property
    def stored(self) -> tuple[BundleEntry, ...]:
        """The entries with bytes: whole tensors and slices."""
        return tuple(entry for entry in self.entries if not entry.slices)


def read_index(data: bytes) -> Index:
    """Returns the content of an index.

    Args:
      data: The whole ``.index`` file.

    Raises:
      CheckpointDamagedError: `data` is not an index, is damaged, contradicts itself, or was written
        by a newer TensorFlow or on a big-endian machine; the message says what is wrong and where.
    """
    pairs = read_table(data)
    if not pairs or pairs[0][0]:
        raise damaged("it has no header")
    num_shards = _read_header(pairs[0][1])
    entries: list[BundleEntry] = []
    unlinked: list[tuple[int, bytes, tuple[Extents, ...]]] = []
    parse, layout = proto.Entry.FromString, functools.lru_cache(None)(_layout)
    append = entries.append
    for key, value in pairs[1:]:
        try:
            message = parse(value)
            dtype, shape, nbytes = layout(message.dtype, message.shape)
            slices = message.slices
            extents = tuple(map(proto.decode_extents, slices)) if slices else ()
        except (DecodeError, ValueError) as error:
            raise damaged(f"the entry of {_text(key)!r} makes no sense ({error})") from None
        shard, offset, size = message.shard_id, message.offset, message.size
        if not 0 <= shard < num_shards or offset < 0 or size < 0:
            raise damaged(f"the entry of {_text(key)!r} points outside the data files")
        if nbytes != size and nbytes is not None and not slices:
            raise damaged(f"the entry of {_text(key)!r} has {size} bytes instead of {nbytes}")
        if extents or key[0] == 0:
            unlinked.append((len(entries), key, extents))
        append(BundleEntry(_text(key), dtype, shape, shard, offset, size, message.crc32c))
    _link_slices(entries, unlinked)
    return Index(num_shards, tuple(entries))


def header_only_index() -> bytes:
    """Returns the index of a bundle with one empty data file and no tensors.

    Merged by `merge_indexes` it adds a data file to the result, so that the data files of a
    checkpoint get names other than those of the checkpoint it overwrites. ``SaveV2`` cannot write
    such a bundle, and ``MergeV2Checkpoints`` cannot merge it (see `index_merge`).
    """
    return write_table([(b"", proto.single_file_header())])


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _layout(dtype: int, encoded_shape: bytes) -> tuple[str, tuple[int, ...], int | None]:
    """Returns name, dimensions and bytes of a tensor; None bytes if they depend on the content."""
    known = BY_NUMBER.get(dtype)
    if known is None:
        raise ValueError(f"data type {dtype} is not known; a newer TensorFlow may have written it")
    shape = proto.decode_shape(encoded_shape)
    return known.name, shape, None if known.size is None else known.size * math.prod(shape)


def _read_header(value: bytes) -> int:
    """Returns the number of data files."""
    try:
        header = proto.Header.FromString(value)
        version = proto.Version.FromString(header.version)
    except DecodeError as error:
        raise damaged(f"its header makes no sense ({error})") from None
    if header.endianness != proto.LITTLE_ENDIAN:
        raise CheckpointDamagedError(
            "The checkpoint was written on a big-endian machine; only TensorFlow can read it."
        )
    if version.min_consumer > proto.VERSION or proto.VERSION in version.bad_consumers:
        raise CheckpointDamagedError(
            f"A newer TensorFlow wrote the checkpoint: format {version.producer}, readable "
            f"from format {version.min_consumer}; this distckpt knows format {proto.VERSION}."
        )
    if not 0 < header.num_shards <= _MOST_SHARDS:
        raise damaged(f"its header counts {header.num_shards} data files")
    return int(header.num_shards)


def _link_slices(
    entries: list[BundleEntry], unlinked: list[tuple[int, bytes, tuple[Extents, ...]]]
) -> None:
    """Marks in `entries` which are slices of which tensor.

    Args:
      entries: All entries; changed in place.
      unlinked: Position, stored key and slices of each entry that is partitioned or may be a slice.
    """
    parts: dict[tuple[bytes, Extents], int] = {}
    for position, key, extents in unlinked:
        if not extents and (part := _part(key)):
            parts[part] = position
    for position, key, extents in unlinked:
        if extents:
            whole = entries[position]
            specs = tuple(_link(entries, parts, whole, key, e) for e in extents)
            if len(set(specs)) != len(specs):
                raise damaged(f"tensor {whole.key!r} lists a slice twice")
            entries[position] = whole._replace(slices=specs)


def _part(key: bytes) -> tuple[bytes, Extents] | None:
    try:
        return decode_slice_key(key)
    except ValueError:
        return None  # a tensor whose name happens to begin with a zero


def _link(
    entries: list[BundleEntry],
    parts: dict[tuple[bytes, Extents], int],
    whole: BundleEntry,
    name: bytes,
    extents: Extents,
) -> str:
    """Marks the entry of one slice of `whole` as such and returns its spec."""
    try:
        shape = slice_shape(whole.shape, extents)
    except ValueError as error:
        raise damaged(f"tensor {whole.key!r} lists {error}") from None
    spec = format_spec(whole.shape, extents)
    position = parts.get((name, extents))
    if position is None:
        raise damaged(f"tensor {whole.key!r} lists slice {spec!r}, which is missing")
    part = entries[position]
    if (part.dtype, part.shape) != (whole.dtype, shape):
        raise damaged(f"slice {spec!r} of tensor {whole.key!r} is of another type or shape")
    entries[position] = part._replace(key=whole.key, spec=spec)
    return spec
