"""What the parts of one manager share."""

from __future__ import annotations

import dataclasses

from distckpt.core.delays import Patience
from distckpt.options import ManagerOptions
from distckpt.roles.books import Books
from distckpt.roles.catalog import Catalog
from distckpt.roles.patient import PatientReader
from distckpt.storage.base import Storage
from distckpt.wiring.job import Job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """What the parts of one manager share.

    Attributes:
      job: The job.
      storage: Where the directory is.
      directory: Its absolute path or URL.
      books: This worker's list of checkpoints.
      options: The manager's.
    """

    job: Job
    storage: Storage
    directory: str
    books: Books
    options: ManagerOptions

    @property
    def patience(self) -> Patience:
        """How long a save waits for others."""
        return Patience(self.options.save_deadline, self.options.slow_factor)

    def catalog(self) -> Catalog:
        """Returns what reads the directory, with patience of its own."""
        return Catalog(PatientReader(self.storage), self.directory)
