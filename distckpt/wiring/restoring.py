"""Puts together what one call of ``restore_or_initialize()`` takes, and has it done."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from distckpt.core.delays import Patience
from distckpt.core.worker_states import WorkerStates
from distckpt.options import ManagerOptions
from distckpt.roles.books import Books
from distckpt.roles.catalog import Catalog
from distckpt.roles.patient import PatientReader
from distckpt.roles.restore import RestoreSession
from distckpt.state.restore import restore
from distckpt.state.worker_state import WorkerState
from distckpt.storage.base import Storage
from distckpt.wiring.job import Job


class Restoring:
    """Restores for one manager. Every worker; on the training thread.

    Args:
      job: The job.
      storage: Where the directory is.
      directory: Its absolute path or URL.
      books: This worker's list of checkpoints.
      options: The manager's.
      target: The state of all workers.
      own: What only this worker has; None if the program gave nothing of the kind.
      path_of: Returns a checkpoint's path, as users see it, from its name.
    """

    def __init__(
        self,
        job: Job,
        storage: Storage,
        directory: str,
        books: Books,
        options: ManagerOptions,
        target: tf.train.Checkpoint,
        own: WorkerState | None,
        path_of: Callable[[str], str],
    ) -> None:
        self._job = job
        self._storage = storage
        self._directory = directory
        self._books = books
        self._options = options
        self._target = target
        self._own = own
        self._path_of = path_of

    def restore(self) -> str | None:
        """Restores the newest good checkpoint, and returns its name; None if there is none."""
        return RestoreSession(
            self._job.coordinator,
            self._storage,
            self._directory,
            self._books,
            self._job.keys("restore"),
            self._restore,
            patience=Patience(self._options.restore_deadline, self._options.slow_factor),
            verify_data=self._options.verify_on_restore,
            emitter=self._job.emit,
        ).run()

    def _restore(self, name: str) -> None:
        """Restores one that has been found good."""
        restore(self._target, self._path_of(name))
        if self._own is not None:
            manifest = Catalog(PatientReader(self._storage), self._directory).manifest(name)
            states = manifest.worker_states if manifest is not None else ()
            paths = tuple(self._path_of(state.prefix) for state in states)
            me = self._job.coordinator
            self._own.restore(name, WorkerStates(paths, me.index, me.count))
