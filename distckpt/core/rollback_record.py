"""The record of a rollback: the file that decides the rollback and says how to finish it.

From the moment that ``.distckpt/rollback.json`` exists, the checkpoints that it names no longer
count, and the pointer in this record replaces the content of TensorFlow's file. Then their files
are moved away one by one. If the process dies in between, the directory's next owner finishes from
this file.
"""

from __future__ import annotations

import dataclasses
import json

import google_crc32c

from distckpt.core import layout, safe_names
from distckpt.errors import DirectoryError, ManifestError, reason


@dataclasses.dataclass(frozen=True)
class Leaving:
    """A checkpoint to set aside; not one saved since under the same name, with another index.

    Attributes:
      name: Its name.
      index_crc32c: The CRC32C of its index's bytes, not masked; None if it has none.
    """

    name: str
    index_crc32c: int | None


@dataclasses.dataclass(frozen=True)
class Rollback:
    """A rollback.

    Attributes:
      to: The checkpoint that becomes the newest.
      folder: The name, in the directory, of the folder with what is set aside.
      leaving: The checkpoints to set aside, newest first.
      found: The CRC32C of TensorFlow's file before the rollback; None if there was none.
      pointer: The content of TensorFlow's file afterwards.
      before: The content of TensorFlow's file before, for the folder.
    """

    to: str
    folder: str
    leaving: tuple[Leaving, ...]
    found: int | None
    pointer: str
    before: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the checkpoints to set aside, newest first."""
        return tuple(one.name for one in self.leaving)

    def pointer_after(self, data: bytes) -> bytes:
        """Returns what counts as TensorFlow's file: the rollback's, unless the file has changed.

        Args:
          data: The content of the file; empty if there is none.
        """
        return self.pointer.encode() if self.found == crc32c_of(data) else data


def crc32c_of(pointer: bytes) -> int | None:
    """Returns the checksum of TensorFlow's file, or None if it is empty or absent."""
    return int(google_crc32c.value(pointer)) if pointer else None


def render(rollback: Rollback) -> bytes:
    """Returns the content of the file."""
    return json.dumps(dataclasses.asdict(rollback), indent=1).encode() + b"\n"


def parse(data: bytes, source: str) -> Rollback:
    """Returns what the file says.

    Args:
      data: Its content.
      source: Its path, for errors.

    Raises:
      DirectoryError: It is damaged, or a name in it is not that of a checkpoint or such a folder.
    """
    try:
        body = json.loads(data)
        leaving = tuple(
            Leaving(safe_names.safe_checkpoint(one["name"]), _checksum(one["index_crc32c"]))
            for one in body["leaving"]
        )
        to, folder = safe_names.safe_checkpoint(body["to"]), body["folder"]
        pointer, before = body["pointer"], body["before"]
        if not layout.is_set_aside_name(folder) or to in {one.name for one in leaving}:
            raise ValueError("it is not what a rollback writes")
        pointer.encode(), before.encode()
        return Rollback(to, folder, leaving, _checksum(body["found"]), pointer, before)
    except (
        *(ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError),
        ManifestError,
    ) as error:
        raise DirectoryError(
            f"{source} is damaged ({reason(error)}). It says which checkpoints a "
            "rollback was setting aside; some of their files may be in the folder set_aside beside "
            "it. Put these back into the directory, or keep them elsewhere; then remove the file."
        ) from None


def _checksum(value: object) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 32):
        raise ValueError(f"{value!r} is not a checksum")
    return value
