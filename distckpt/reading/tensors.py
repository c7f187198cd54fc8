"""Reads single tensors of a checkpoint, or rows of them, without TensorFlow. Any process.

Works on every TensorFlow V2 checkpoint; with a manifest it also knows which worker wrote what.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import TYPE_CHECKING

from distckpt.core import layout
from distckpt.core.manifest import Manifest
from distckpt.core.tensorflow_format import index_reader
from distckpt.core.tensorflow_format.index_reader import BundleEntry
from distckpt.core.tensorflow_format.tensor_checksum import verify_entry
from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError, ConfigurationError, explain
from distckpt.storage.retrying_reader import Reader

if TYPE_CHECKING:
    from distckpt.core.tensorflow_format.tensor_values import Array

# The end of the keys of variables, which users may leave out.
VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint.

    Attributes:
      key: Its checkpoint key.
      dtype: TensorFlow's name of the type.
      shape: Its dimensions.
      bytes: Its size in the data files.
      files: Its data files.
      workers: The workers that wrote them; empty if there is no manifest.
      pieces: The entries with its bytes: one, or one for each slice.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    files: tuple[str, ...]
    workers: tuple[int, ...]
    pieces: tuple[BundleEntry, ...]

    @property
    def short_key(self) -> str:
        """The key without the common end of the keys of variables."""
        return self.key.removesuffix(VARIABLE)

    @property
    def content(self) -> object:
        """Equal for two tensors only if their values are equal, as far as checksums tell."""
        pieces = sorted((p.spec, p.size, p.crc32c) for p in self.pieces)
        return self.dtype, self.shape, pieces


class Tensors:
    """The tensors of one checkpoint.

    Args:
      storage: Where to read.
      directory: The absolute path or URL of the checkpoint's directory.
      name: The checkpoint.
      trusts_index: Whether the manifest is not read, so that its damage does not matter.

    Raises:
      CheckpointDamagedError: The index or the manifest is damaged.
      OSError: The index cannot be read.
    """

    def __init__(
        self, storage: Reader, directory: str, name: str, *, trusts_index: bool = False
    ) -> None:
        self._storage = storage
        self._directory = directory
        self.name = name
        self.manifest: Manifest | None = None
        if not trusts_index:
            self.manifest = Catalog(storage, directory, brief=True).manifest(name)
        path = layout.join(directory, layout.index_name(name))
        self.index_data = storage.read(path)
        self._index = index_reader.read_index(self.index_data)
        writers = {f.name: f.worker for f in self.manifest.files} if self.manifest else {}
        if self.manifest is not None and not self.manifest.workers:
            writers = {}  # an imported checkpoint: the writers are unknown
        pieces: dict[str, list[BundleEntry]] = {}
        for entry in self._index.stored:
            pieces.setdefault(entry.key, []).append(entry)
        self._tensors = {
            t.key: self._tensor(t, tuple(pieces.get(t.key, ())), writers)
            for t in sorted(self._index.tensors, key=lambda t: t.key)
        }

    def all(self) -> list[Tensor]:
        """Returns all tensors, by key."""
        return list(self._tensors.values())

    def find(self, key: str) -> Tensor:
        """Returns the tensor with a key, which may lack the common end of the keys of variables.

        Raises:
          ConfigurationError: There is none; the message names the nearest keys.
        """
        for candidate in (key, key + VARIABLE):
            if candidate in self._tensors:
                return self._tensors[candidate]
        known = {t.short_key: t for t in self._tensors.values()}
        close = difflib.get_close_matches(key.removesuffix(VARIABLE), known, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ConfigurationError(f"{self.name} has no tensor {key!r}.{hint}")

    def read(self, tensor: Tensor, rows: tuple[int, int] | None = None) -> Array:
        """Returns the value of a tensor, read and checked against its checksums.

        Args:
          tensor: One of `all`.
          rows: Only these rows along the first axis: (start, stop). Then only their bytes are read,
            and not verified, because the checksums cover whole pieces.

        Raises:
          CheckpointDamagedError: The bytes are damaged, or their file is missing.
          UnsupportedOptionError: The type has no NumPy counterpart.
          OSError: A file cannot be read.
        """
        from distckpt.core.tensorflow_format import tensor_values

        if rows is not None:
            return self._rows(tensor, *rows)
        if len(tensor.pieces) == 1 and not tensor.pieces[0].spec:
            return tensor_values.decode(tensor.pieces[0], self.raw(tensor.pieces[0]))
        parts = [
            (
                tensor_values.parse_extents(p.spec, tensor.shape),
                tensor_values.decode(p, self.raw(p)),
            )
            for p in tensor.pieces
        ]
        return tensor_values.assemble(tensor.dtype, tensor.shape, parts)

    def raw(self, piece: BundleEntry) -> bytes:
        """Returns the bytes of a piece, checked against its checksum.

        Raises:
          CheckpointDamagedError: They are damaged, or their file is missing.
          OSError: The file cannot be read.
        """
        path = self._path(piece)
        data = self._bytes(path, piece.offset, piece.size)
        try:
            verify_entry(piece, functools.partial(_part, data, piece.offset))
        except CheckpointDamagedError as error:
            raise CheckpointDamagedError(f"{path}: {error}") from None
        return data

    def _bytes(self, path: str, offset: int, size: int) -> bytes:
        try:
            return self._storage.read(path, offset, size)
        except FileNotFoundError as error:
            raise CheckpointDamagedError(f"{explain(error)}.") from error

    def _rows(self, tensor: Tensor, start: int, stop: int) -> Array:
        """Returns some rows, of a type of fixed size or of strings."""
        import numpy as np

        from distckpt.core.tensorflow_format import tensor_values

        if not tensor.shape or not 0 <= start <= stop <= tensor.shape[0]:
            raise ConfigurationError(
                f"{tensor.key!r} of shape {list(tensor.shape)} has no rows {start} to {stop}."
            )
        if tensor.dtype in ("string", "variant"):
            return self.read(tensor)[start:stop]
        dtype = tensor_values.numpy_dtype(tensor.dtype)
        result = np.empty((stop - start, *tensor.shape[1:]), dtype)
        for piece in tensor.pieces:
            extents = tuple((0, size) for size in tensor.shape)
            if piece.spec:
                extents = tensor_values.parse_extents(piece.spec, tensor.shape)
            (first, count), *others = extents
            low, high = max(start, first), min(stop, first + count)
            if low < high:
                columns = tuple(slice(begin, begin + size) for begin, size in others)
                part = self._rows_of(piece, low - first, high - first)
                result[(slice(low - start, high - start), *columns)] = part
        return result

    def _rows_of(self, piece: BundleEntry, start: int, stop: int) -> Array:
        from distckpt.core.tensorflow_format import tensor_values

        row = piece.size // piece.shape[0]
        wanted = (stop - start) * row
        path = self._path(piece)
        data = self._bytes(path, piece.offset + start * row, wanted)
        if len(data) != wanted:
            raise CheckpointDamagedError(f"{path} ends before the rows of {piece.key!r} do.")
        return tensor_values.from_elements(piece.dtype, (stop - start, *piece.shape[1:]), data)

    def _tensor(
        self, whole: BundleEntry, pieces: tuple[BundleEntry, ...], writers: dict[str, int]
    ) -> Tensor:
        files = sorted({self._file(piece) for piece in pieces})
        return Tensor(
            whole.key,
            whole.dtype,
            whole.shape,
            sum(piece.size for piece in pieces),
            tuple(files),
            tuple(sorted({writers[file] for file in files if file in writers})),
            pieces,
        )

    def _file(self, piece: BundleEntry) -> str:
        return layout.data_name(self.name, piece.shard, self._index.num_shards)

    def _path(self, piece: BundleEntry) -> str:
        return layout.join(self._directory, self._file(piece))


def _part(data: bytes, begin: int, offset: int, size: int) -> bytes:
    return data[offset - begin : offset - begin + size]
