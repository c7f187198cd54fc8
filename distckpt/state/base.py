"""The state port: what the roles need to know of the thing that is being saved."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence

from distckpt.core.plan import Piece


class CapturedState(abc.ABC):
    """One worker's share of the values of one moment, held until they are written.

    Attributes:
      held: Whether the values are held. If not, they are read while writing (`DelegatedState`), so
        training must not go on before that.
    """

    held: bool = True

    def read_together(self) -> None:  # noqa: B027 - most states have nothing to read so
        """Reads the entries marked ``collective``. All workers at once, on the training thread."""

    def copies(self) -> list[Callable[[], int]] | None:
        """Returns functions that compute the checksums of copies of what others write, in order.

        Each lets go of the copy; they may run in several threads. None if nothing is to be compared
        (`core.replicas.Check`). The checksum is that of a bundle's index: the masked CRC32C.
        """
        return None

    def release(self) -> None:  # noqa: B027 - a state may hold nothing
        """Lets go of all that is still held."""

    @abc.abstractmethod
    def write(self, folder: str, stem: str, pieces: Sequence[Piece]) -> tuple[str, ...]:
        """Writes `pieces` as tensor bundles into `folder`, and lets go of them; does not flush.

        May be called from several threads at once, for different pieces and stems.

        Args:
          folder: An existing directory.
          stem: How the names of all files written must begin.
          pieces: What to write, of this worker's share.

        Returns:
          The names within `folder` of the bundles written, in the order to merge them in.

        Raises:
          OSError: The storage failed; ENOSPC when it is full.
        """


@dataclasses.dataclass(frozen=True)
class OwnState:
    """What only this worker has: the values, and all of what there is to write of them."""

    values: CapturedState
    pieces: tuple[Piece, ...]


class Merger(abc.ABC):
    """Puts bundles together."""

    @abc.abstractmethod
    def merge(self, folder: str, prefixes: Sequence[str], name: str) -> None:
        """Merges bundles of `folder` into the bundle `name` there. Metadata and renames only.

        The data files get the names ``name.data-00000-of-0000N`` in the order of `prefixes`, the
        indexes of the parts are removed.

        Raises:
          OSError: The storage failed.
        """
