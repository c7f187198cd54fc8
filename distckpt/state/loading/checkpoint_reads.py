"""Reads tensors of a checkpoint into memory of their own, which a variable can take over.

``RestoreV2`` reads a large tensor into a buffer of the file system, copies it, and computes the
checksum in another pass. Here the bytes are read to where they stay, and each chunk is checked
while it is in the processor's cache. For small tensors the op is faster: one reads many.

Private TensorFlow API used here: ``EagerTensor._numpy``; tests/unit/state/test_checkpoint_reads.py
would notice a change.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from distckpt.core import layout
from distckpt.core.tensorflow_format import crc32c, index_reader
from distckpt.core.tensorflow_format.index_reader import BundleEntry
from distckpt.core.tensorflow_format.slice_encoding import parse_spec
from distckpt.errors import CheckpointDamagedError

# From this size in bytes on, a tensor is read directly.
LARGE = 256 * 1024
# How many bytes are read and then checked: they stay in the cache meanwhile.
_CHUNK = 1 << 20
# The most that one op reads: what it has read is held until it is used.
_BATCH_BYTES = 16 << 20
_BATCH_TENSORS = 1000
# Types that `tf.raw_ops.Empty` makes, and that NumPy writes.
_DIRECT = frozenset(
    {
        *(tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.bool),
        *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    }
)


class Wanted(NamedTuple):
    """A whole tensor that is to be read.

    Attributes:
      key: Its checkpoint key.
      dtype: The type that it has in the checkpoint.
      shape: The dimensions that it has in the checkpoint.
    """

    key: str
    dtype: tf.DType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return int(math.prod(self.shape) * self.dtype.size)


def read_tensors(path: str, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Any]]:
    """Reads tensors, and checks each against the checksum in the index. Any thread.

    Args:
      path: The prefix of the checkpoint's files.
      wanted: The tensors.

    Yields:
      For each tensor, in any order: its position in `wanted`, and an eager tensor in host memory
      whose buffer nothing else uses. No more than 16 MiB, or one tensor, are read in advance.

    Raises:
      CheckpointDamagedError: The bytes of a tensor differ from those that were saved.
      tf.errors.OpError: TensorFlow could not read a tensor.
    """
    pieces = _direct_pieces(path, wanted)
    others = [position for position in range(len(wanted)) if position not in pieces]
    for position, parts in pieces.items():
        try:
            tensor = _read_directly(path, wanted[position], parts)
        except OSError:  # if the op fails, too, its error tells `restore` whether this is damage
            others.append(position)
            continue
        yield position, tensor
    for batch in _batches(wanted, others):
        yield from zip(batch, _read_by_op(path, [wanted[p] for p in batch]), strict=True)


class _Pieces(NamedTuple):
    """The stored pieces of a tensor, in the order of its bytes.

    Attributes:
      entries: Their entries.
      shards: The number of the checkpoint's data files.
    """

    entries: list[BundleEntry]
    shards: int


def _direct_pieces(path: str, wanted: Sequence[Wanted]) -> dict[int, _Pieces]:
    """Returns what is read directly, by its position in `wanted`."""
    if "://" in path or sys.byteorder != "little":
        return {}
    large = [n for n, each in enumerate(wanted) if each.size >= LARGE and each.dtype in _DIRECT]
    if not large:
        return {}
    try:
        with open(layout.index_name(path), "rb") as file:
            index = index_reader.read_index(file.read())
    except (OSError, CheckpointDamagedError):  # perhaps only TensorFlow can read it
        return {}
    stored = {(entry.key, entry.spec): entry for entry in index.stored}
    tensors = {entry.key: entry for entry in index.tensors}
    found = {}
    for position in large:
        entry = tensors.get(wanted[position].key)
        entries = _in_order(entry, stored) if entry is not None else None
        if entries is not None and entry is not None and _matches(entry, wanted[position]):
            found[position] = _Pieces(entries, index.num_shards)
    return found


def _matches(entry: BundleEntry, wanted: Wanted) -> bool:
    return entry.shape == wanted.shape and entry.dtype == wanted.dtype.name


def _in_order(
    entry: BundleEntry, stored: dict[tuple[str, str], BundleEntry]
) -> list[BundleEntry] | None:
    """Returns the pieces in the order of the tensor's bytes.

    None if they do not divide its first axis.
    """
    if not entry.slices:
        return [entry]
    rows = []
    for spec in entry.slices:
        (first, *others) = parse_spec(spec)[1]
        if any(extent is not None for extent in others):
            return None
        rows.append((first or (0, entry.shape[0]), stored[entry.key, spec]))
    rows.sort(key=lambda row: row[0])
    end = 0
    for (start, length), _ in rows:
        if start != end:
            return None
        end += length
    return [piece for _, piece in rows] if end == entry.shape[0] else None


def _read_directly(path: str, wanted: Wanted, pieces: _Pieces) -> Any:
    with tf.device("CPU:0"):
        tensor = tf.raw_ops.Empty(shape=wanted.shape, dtype=wanted.dtype)
    content = np.asarray(tensor._numpy()).reshape(-1).view(np.uint8)
    start = 0
    for entry in pieces.entries:
        _read_piece(path, entry, pieces.shards, content[start : start + entry.size])
        start += entry.size
    return tensor


def _read_piece(path: str, entry: BundleEntry, shards: int, content: Any) -> None:
    """Fills `content`, an array of bytes, with those of an entry."""
    name = layout.data_name(path, entry.shard, shards)
    crc = 0
    with open(name, "rb", buffering=0) as file:
        file.seek(entry.offset)
        for start in range(0, entry.size, _CHUNK):
            chunk = content[start : start + _CHUNK]
            if not _fill(file, memoryview(chunk)):
                raise CheckpointDamagedError(f"{name} ends within tensor {entry.key!r}.")
            crc = crc32c.extend(crc, chunk)
    if crc32c.mask(crc) != entry.crc32c:
        raise CheckpointDamagedError(
            f"Tensor {entry.key!r} is damaged in {name}, bytes {entry.offset} to "
            f"{entry.offset + entry.size}: its checksum is {crc32c.mask(crc):#010x}, not "
            f"{entry.crc32c:#010x} as saved."
        )


def _fill(file: Any, view: memoryview) -> bool:
    """Reads until `view` is full; returns whether the file has enough bytes."""
    while view:
        count = file.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True


def _batches(wanted: Sequence[Wanted], positions: Sequence[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for position in positions:
        more = wanted[position].size
        if batch and (size + more > _BATCH_BYTES or len(batch) == _BATCH_TENSORS):
            yield batch
            batch, size = [], 0
        batch.append(position)
        size += more
    if batch:
        yield batch


def _read_by_op(path: str, wanted: Sequence[Wanted]) -> list[Any]:
    with tf.device("CPU:0"):
        found: list[Any] = tf.raw_ops.RestoreV2(
            prefix=path,
            tensor_names=[each.key for each in wanted],
            shape_and_slices=[""] * len(wanted),
            dtypes=[each.dtype for each in wanted],
        )
    return found
