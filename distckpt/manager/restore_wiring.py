"""Assembles what a call of ``restore_or_initialize()`` needs, and runs it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from distckpt.calls.restore_calls import join_restore
from distckpt.core import layout
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.core.worker_states import WorkerStates
from distckpt.manager.shared_parts import Common
from distckpt.restoring.restore_session import RestoreSession
from distckpt.state.loading.restore import restore
from distckpt.state.worker_state import WorkerState


class Restoring:
    """Restores for one manager. Every worker; on the training thread.

    Args:
      common: What this part shares with the manager's other parts.
      target: The state of all workers.
      own: What only this worker has; None without a ``worker_checkpoint``.
    """

    def __init__(
        self, common: Common, target: tf.train.Checkpoint, own: WorkerState | None
    ) -> None:
        self._job = common.job
        self._common = common
        self._target = target
        self._own = own

    def restore(self) -> str | None:
        """Restores the newest good checkpoint, and returns its name; None if there is none."""
        here, options = self._common, self._common.options
        patience = Patience(options.restore_deadline, options.slow_factor)
        keys = join_restore(self._job.coordinator, self._job.log, patience)
        return RestoreSession(
            self._job.coordinator,
            here.storage,
            here.directory,
            here.managed,
            keys,
            self._restore,
            patience=patience,
            verify_data=options.verify_on_restore,
            dispatcher=self._job.emit,
            memory=here.ownership.memory,
        ).run()

    def _restore(self, name: str, count: Callable[[int], None]) -> None:
        """Restores a checkpoint that was found good; counts the bytes that it has read."""
        log, options = self._job.log, self._common.options
        # If it fails on this worker alone, its state is that of no other worker.
        log.generation = -log.passed
        restore(
            self._target,
            self._path_of(name),
            options.require_match,
            verified=options.verify_on_restore,
            count=count,
        )
        self._restore_own(name)
        log.generation = log.passed

    def _restore_own(self, name: str) -> None:
        """Restores what only this worker has."""
        if self._own is None:
            return
        manifest = self._common.catalog().manifest(name)
        states = manifest.worker_states if manifest is not None else ()
        paths = tuple(self._path_of(state.prefix) for state in states)
        me = self._job.coordinator
        self._own.restore(name, WorkerStates(paths, me.index, me.count))

    def _path_of(self, name: str) -> str:
        """Returns a checkpoint's path in the directory in which it was verified."""
        return layout.join(self._common.directory, name)
