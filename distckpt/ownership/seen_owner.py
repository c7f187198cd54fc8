"""The owner of a directory at a restore, and whether the restored state is still the newest."""

from __future__ import annotations

import dataclasses
import time

from distckpt.ownership import owner_record
from distckpt.ownership.owner_record import Owner


@dataclasses.dataclass(frozen=True)
class SeenOwner:
    """The owner of a directory when this process's state was the newest there.

    Attributes:
      owner: The owner; None if nobody owned the directory.
      at: The time, in seconds since 1970.
      did: What this job did then.
      successor: A process that has come since, if one is known.
    """

    owner: Owner | None
    at: float
    did: str = "restored from it"
    successor: Owner | None = None

    def still_holds(self, found: Owner | None) -> bool:
        """Returns whether no process that may have changed the newest checkpoint has come since.

        Args:
          found: The owner of the directory now.
        """
        same = owner_record.newest_by(found) == owner_record.newest_by(self.owner)
        return same and self.successor is None

    def __str__(self) -> str:
        """Returns the time as errors name it."""
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.at))
        return f"since this job {self.did} at {at}"
