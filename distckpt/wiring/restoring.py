"""Puts together what one call of ``restore_or_initialize()`` takes, and has it done."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from distckpt.core.delays import Patience
from distckpt.core.worker_states import WorkerStates
from distckpt.roles.restore import RestoreSession
from distckpt.state.restore import restore
from distckpt.state.worker_state import WorkerState
from distckpt.wiring.common import Common


class Restoring:
    """Restores for one manager. Every worker; on the training thread.

    Args:
      common: What it shares with the manager's other parts.
      target: The state of all workers.
      own: What only this worker has; None if the program gave nothing of the kind.
      path_of: Returns a checkpoint's path, as users see it, from its name.
    """

    def __init__(
        self,
        common: Common,
        target: tf.train.Checkpoint,
        own: WorkerState | None,
        path_of: Callable[[str], str],
    ) -> None:
        self._job = common.job
        self._common = common
        self._target = target
        self._own = own
        self._path_of = path_of

    def restore(self) -> str | None:
        """Restores the newest good checkpoint, and returns its name; None if there is none."""
        here, options = self._common, self._common.options
        return RestoreSession(
            self._job.coordinator,
            here.storage,
            here.directory,
            here.books,
            self._job.keys("restore"),
            self._restore,
            patience=Patience(options.restore_deadline, options.slow_factor),
            verify_data=options.verify_on_restore,
            emitter=self._job.emit,
        ).run()

    def _restore(self, name: str) -> None:
        """Restores one that has been found good."""
        restore(self._target, self._path_of(name))
        if self._own is not None:
            manifest = self._common.catalog().manifest(name)
            states = manifest.worker_states if manifest is not None else ()
            paths = tuple(self._path_of(state.prefix) for state in states)
            me = self._job.coordinator
            self._own.restore(name, WorkerStates(paths, me.index, me.count))
