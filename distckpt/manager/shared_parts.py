"""What the parts of one manager share."""

from __future__ import annotations

import dataclasses

from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.directory.catalog import Catalog
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.manager.job import Job
from distckpt.options import ManagerOptions
from distckpt.ownership.fencing import Ownership
from distckpt.runtime.own_process import OwnProcess
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader


@dataclasses.dataclass(frozen=True)
class Common:
    """What the parts of one manager share.

    Attributes:
      job: The job.
      storage: The directory's storage.
      directory: The directory's absolute path or URL.
      managed: This worker's list of checkpoints.
      options: The manager's options.
      ownership: The chief's ownership of the directory.
      process: The process that made the manager.
    """

    job: Job
    storage: Storage
    directory: str
    managed: ManagedCheckpoints
    options: ManagerOptions
    ownership: Ownership
    process: OwnProcess

    @property
    def patience(self) -> Patience:
        """How long a save waits for the other workers."""
        return Patience(self.options.save_deadline, self.options.slow_factor)

    def catalog(self) -> Catalog:
        """Returns a reader of the directory that retries after errors."""
        return Catalog(RetryingReader(self.storage), self.directory)
