"""Real tensor bundles, made without TensorFlow, and state that saves itself as one."""

from __future__ import annotations

import numpy as np

from distckpt.core import layout
from distckpt.core.protocol.write_plan import Entry, Piece
from distckpt.core.tensorflow_format import bundle_proto as proto
from distckpt.core.tensorflow_format import crc32c
from distckpt.core.tensorflow_format.index_merge import merge_indexes
from distckpt.core.tensorflow_format.leveldb_table import write_table
from distckpt.core.tensorflow_format.slice_encoding import encode_slice_key
from distckpt.state.base import CapturedState, Merger

DTYPES = {"float32": 1, "int64": 9}


def values(number):
    """Returns the state of a small number; the states of two numbers differ in every value."""
    kernel = np.arange(96 * 128, dtype=np.float32).reshape(96, 128) + 1000 * number
    return {
        "bias": np.full(128, number, np.float32),
        "kernel": kernel,
        "step": np.array(number, np.int64),
    }


def bundle_files(tensors):
    """Returns (index, data) of a bundle.

    Args:
      tensors: [(key, whole shape, rows or None, array)].
    """
    data, entries = b"", {}
    for key, shape, rows, array in tensors:
        raw = np.ascontiguousarray(array).tobytes()
        stored = proto.Entry(
            dtype=DTYPES[array.dtype.name],
            shape=encode_shape(array.shape),
            offset=len(data),
            size=len(raw),
            crc32c=crc32c.mask(crc32c.value(raw)),
        )
        data += raw
        if rows is None:
            entries[key.encode()] = stored
            continue
        extents = ((rows[0], rows[1] - rows[0]), *[None] * (len(shape) - 1))
        entries[encode_slice_key(key.encode(), extents)] = stored
        whole = entries.setdefault(
            key.encode(), proto.Entry(dtype=stored.dtype, shape=encode_shape(shape))
        )
        whole.slices.append(encode_extents(extents))
    version = proto.Version(producer=proto.VERSION).SerializeToString()
    header = proto.Header(num_shards=1, version=version)
    rows = [(key, entries[key].SerializeToString()) for key in sorted(entries)]
    return write_table([(b"", header.SerializeToString()), *rows]), data


def encode_shape(shape):
    return proto._Shape(
        dim=[proto._Dim(size=n).SerializeToString() for n in shape]
    ).SerializeToString()


def encode_extents(extents):
    parts = [proto._Extent(start=e[0], length=e[1]) if e else proto._Extent() for e in extents]
    return proto._Slice(extent=[p.SerializeToString() for p in parts]).SerializeToString()


class PlainState(CapturedState):
    """Arrays, written through a `Storage`."""

    def __init__(self, storage, arrays):
        self._storage = storage
        self._arrays = arrays
        self.entries = tuple(
            Entry(key, a.dtype.name, a.shape, a.nbytes, chief_only=key == "step")
            for key, a in arrays.items()
        )

    def keep(self, pieces):
        wanted = {p.entry.key for p in pieces}
        self._arrays = {k: a for k, a in self._arrays.items() if k in wanted}

    def write(self, folder, stem, pieces):
        if not pieces:
            return ()
        index, data = bundle_files(
            [(p.entry.key, p.entry.shape, p.rows, self._part(p)) for p in pieces]
        )
        path = layout.join(folder, stem)
        self._storage.write(layout.data_name(path, 0, 1), data, durable=False)
        self._storage.write(layout.index_name(path), index, durable=False)
        return (stem,)

    def _part(self, piece: Piece):
        array = self._arrays[piece.entry.key]
        return array if piece.rows is None else array[slice(*piece.rows)]


class PlainMerger(Merger):
    """Does the same as ``MergeV2Checkpoints``, in steps that a `Storage` sees."""

    def __init__(self, storage):
        self._storage = storage

    def merge(self, folder, prefixes, name):
        paths = [layout.join(folder, prefix) for prefix in prefixes]
        indexes = [self._storage.read(layout.index_name(path)) for path in paths]
        for shard, path in enumerate(paths):
            target = layout.data_name(layout.join(folder, name), shard, len(paths))
            self._storage.rename(layout.data_name(path, 0, 1), target)
        merged = layout.index_name(layout.join(folder, name))
        self._storage.write(merged, merge_indexes(indexes), durable=False)
        for path in paths:
            self._storage.remove(layout.index_name(path))
