"""Writes a checkpoint in another format. Any process; the checkpoint itself is only read.

    plain        one TensorFlow checkpoint of a single data file, with whole tensors
    npz          NumPy's format: a zip with one .npy file for each tensor
    safetensors  the format of that package; all tensors are in memory at once

Every byte that is read is checked against its checksum. Files appear under their names only when
they are complete and flushed.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from distckpt.core import layout
from distckpt.core.tensorflow_format import crc32c
from distckpt.core.tensorflow_format.index_selection import Place, single_index
from distckpt.errors import ConfigurationError, UnsupportedOptionError
from distckpt.reading.tensors import Tensor, Tensors
from distckpt.runtime import portable
from distckpt.storage.base import Storage
from distckpt.storage.temporary import named_errors, temporary_path

if TYPE_CHECKING:
    from distckpt.core.tensorflow_format.tensor_values import Array

PLAIN, NPZ, SAFETENSORS = "plain", "npz", "safetensors"
# Types without a counterpart outside TensorFlow.
_FOREIGN = ("string", "variant", "resource")

Advance = Callable[[int], None]


def export(
    storage: Storage,
    tensors: Tensors,
    chosen: Sequence[Tensor],
    path: str,
    form: str,
    advance: Advance = lambda size: None,
    *,
    replace: bool = False,
) -> list[Tensor]:
    """Writes tensors of a checkpoint to `path`.

    Args:
      storage: The storage of local files.
      tensors: The checkpoint.
      chosen: The tensors to export.
      path: A local path: of a checkpoint ("out/model"; its folder is made), or of a file.
      form: PLAIN, NPZ or SAFETENSORS.
      advance: Called with the number of bytes after each read.
      replace: Whether existing files may be replaced.

    Returns:
      The tensors that were left out, because the format does not support their type.

    Raises:
      ConfigurationError: A file exists already, or the path is not local.
      UnsupportedOptionError: The package safetensors is missing.
      CheckpointDamagedError: The checkpoint is damaged.
      OSError: The file cannot be written.
    """
    if "://" in path:
        raise ConfigurationError(f"{path}: give a local path; other programs read it from there.")
    for file in files_of(path, form):
        if not replace and (storage.exists(file) or storage.is_link(file)):
            raise ConfigurationError(f"{file} exists already; --force replaces it.")
    storage.make_directory(os.path.dirname(path) or os.curdir)
    if form == PLAIN:
        _plain(storage, tensors, chosen, path, advance)
        return []
    wanted = [tensor for tensor in chosen if tensor.dtype not in _FOREIGN]
    if form == NPZ:
        _npz(tensors, wanted, path, advance)
    else:
        storage.write(path, _safetensors(tensors, wanted, advance), durable=True)
    return [tensor for tensor in chosen if tensor.dtype in _FOREIGN]


def files_of(path: str, form: str) -> list[str]:
    """Returns the paths of the files that an export makes."""
    if form != PLAIN:
        return [path]
    return [layout.data_name(path, 0, 1), layout.index_name(path)]


def _plain(
    storage: Storage, tensors: Tensors, chosen: Sequence[Tensor], path: str, advance: Advance
) -> None:
    places: dict[str, Place] = {}
    data, index = files_of(path, PLAIN)
    with _complete(data) as file:
        for tensor in chosen:
            content, masked = _content(tensors, tensor)
            places[tensor.key] = Place(file.tell(), len(content), masked)
            file.write(content)
            advance(tensor.bytes)
        # The index comes last: without it there is no checkpoint. An old index must not seem to
        # belong to the new data.
        storage.remove(index)
    storage.write(index, single_index(tensors.index_data, places), durable=True)


def _content(tensors: Tensors, tensor: Tensor) -> tuple[bytes, int]:
    """Returns the bytes of a whole tensor, and their masked checksum."""
    if len(tensor.pieces) == 1 and not tensor.pieces[0].spec:
        (piece,) = tensor.pieces
        return tensors.raw(piece), piece.crc32c
    content = tensors.read(tensor).tobytes()
    return content, crc32c.mask(crc32c.value(content))


def _npz(tensors: Tensors, chosen: Sequence[Tensor], path: str, advance: Advance) -> None:
    import numpy as np

    with (
        _complete(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for tensor in chosen:
            with archive.open(f"{tensor.short_key}.npy", "w", force_zip64=True) as member:
                value = _known_to_numpy(tensors.read(tensor))
                np.lib.format.write_array(member, value, allow_pickle=False)
            advance(tensor.bytes)


def _known_to_numpy(value: Array) -> Array:
    """Returns a value of bfloat16, float8 or similar in a type that NumPy's files support."""
    import numpy as np

    if value.dtype.kind in "biufc" and np.dtype(value.dtype.str) == value.dtype:
        return value
    return value.astype(np.int8 if "int" in value.dtype.name else np.float32)


def _safetensors(tensors: Tensors, chosen: Sequence[Tensor], advance: Advance) -> bytes:
    try:
        from safetensors import numpy as library
    except ImportError:
        raise UnsupportedOptionError(
            "The package safetensors is missing: pip install 'distckpt[export]'."
        ) from None
    import numpy as np

    values: dict[str, Any] = {}
    for tensor in chosen:
        values[tensor.short_key] = np.ascontiguousarray(_known_to_numpy(tensors.read(tensor)))
        advance(tensor.bytes)
    metadata = {"checkpoint": tensors.name}
    if tensors.manifest is not None:
        metadata["step"] = str(tensors.manifest.step)
    content: bytes = library.save(values, metadata)
    return content


@contextlib.contextmanager
def _complete(path: str) -> Iterator[IO[bytes]]:
    """Yields a file that gets its name when it is complete; nothing is left after an error.

    Like `Storage.write`, for content that is too large for memory.
    """
    temporary = temporary_path(path)
    with named_errors(temporary, path):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | portable.OPEN
        descriptor = os.open(temporary, flags, 0o666)
    try:
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with named_errors(temporary, path):
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
