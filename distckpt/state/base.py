"""The state port: what the other packages need to know about the state that is saved."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from distckpt.core.protocol.write_plan import Piece
from distckpt.core.tensorflow_format.index_writer import WrittenIndex


class CapturedState(abc.ABC):
    """One worker's share of the values at one moment, held until they are written.

    Attributes:
      held: Whether the values are held. If not, they are read while writing (`DelegatedState`), so
        training must wait for the write.
    """

    held: bool = True

    def read_together(self) -> None:  # noqa: B027 - most states have nothing to read
        """Reads the entries marked ``collective``. All workers together, on the training thread."""

    def copies(self) -> list[Callable[[], int]] | None:
        """Returns functions that compute the checksums of this worker's copies, in order.

        The copies are of pieces that other workers write. Each function releases its copy; several
        may run at the same time, in threads. None if nothing is compared (`replica_check.Check`).
        The checksum is the masked CRC32C, as in a bundle's index.
        """
        return None

    def release(self) -> None:  # noqa: B027 - a state may hold nothing
        """Releases all values that are still held."""

    @abc.abstractmethod
    def write(self, folder: str, stem: str, pieces: Sequence[Piece]) -> tuple[str, ...]:
        """Writes `pieces` as tensor bundles into `folder`, and releases them; does not flush.

        May be called from several threads at once, for different pieces and stems.

        Args:
          folder: An existing directory.
          stem: The prefix of the names of all files written.
          pieces: The part of this worker's share to write.

        Returns:
          The names within `folder` of the bundles written, in the order of merging.

        Raises:
          OSError: The storage failed; ENOSPC when it is full.
        """

    def take_index(self, prefix: str) -> WrittenIndex | None:
        """Returns the index of a bundle that `write` has written, and forgets it; None if unknown.

        May be called from several threads at once, for different bundles.
        """
        return None


@dataclasses.dataclass(frozen=True)
class OwnState:
    """This worker's own state: the values, and the pieces to write."""

    values: CapturedState
    pieces: tuple[Piece, ...]


class BundleWriter(abc.ABC):
    """Writes tensors as a bundle."""

    @abc.abstractmethod
    def write(
        self,
        path: str,
        keys: Sequence[str],
        specs: Sequence[str],
        tensors: list[Any],
        device: str | None = None,
    ) -> WrittenIndex | None:
        """Writes the bundle ``path.index``, ``path.data-00000-of-00001``; does not flush.

        Args:
          path: Prefix of the files, which do not exist.
          keys: The checkpoint key of each tensor; a key may occur more than once, with different
            slices.
          specs: The slice spec of each tensor, "" for a whole tensor.
          tensors: Eager tensors in host memory. The list is used up.
          device: The device whose host accesses the file system, if the program chose one.

        Returns:
          The index, if this process has made it; None if TensorFlow has.

        Raises:
          OSError: The storage failed.
        """


class Merger(abc.ABC):
    """Merges bundles."""

    @abc.abstractmethod
    def merge(self, folder: str, prefixes: Sequence[str], name: str) -> None:
        """Merges bundles of `folder` into the bundle `name` there. Metadata and renames only.

        The data files get the names ``name.data-00000-of-0000N`` in the order of `prefixes`; the
        indexes of the parts are removed.

        Raises:
          OSError: The storage failed.
        """
