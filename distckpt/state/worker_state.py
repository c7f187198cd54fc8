"""Saves and restores a worker's own state: the program's ``worker_checkpoint``.

Each worker writes all of its own state, besides its share of the common state, under the same
commit. If the number of workers has changed, a policy decides about these states
(`ManagerOptions`).

Private TensorFlow API used here: ``Checkpoint._trackable_children``;
tests/unit/manager/test_worker_state.py would notice a change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from distckpt.core.worker_states import WorkerStates
from distckpt.errors import RestoreError, UnsupportedOptionError
from distckpt.state.base import BundleWriter, OwnState
from distckpt.state.capture import Capture
from distckpt.state.loading import program_match
from distckpt.state.loading.restore import as_damage

_log = logging.getLogger("distckpt")

OnResize = str | Callable[[WorkerStates], None]


class WorkerState:
    """Captures and restores one worker's own state. On its training thread.

    Args:
      checkpoint: The program's ``worker_checkpoint``.
      on_resize: As ``ManagerOptions.worker_state_on_resize``.
      require_match: As ``ManagerOptions.require_match``.
      writer: Writes the bundles. Default: TensorFlow's op.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        on_resize: OnResize,
        require_match: str = "off",
        *,
        writer: BundleWriter | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._require_match = require_match
        self._on_resize = on_resize
        self._capture = Capture(checkpoint, workers=1, index=0, split="all", writer=writer)

    def take(self) -> OwnState:
        """Returns the state at this moment.

        Raises:
          UnsupportedOptionError: It has an object that cannot be held, or that one worker alone
            cannot hold.
        """
        values, plan = self._capture.take()
        if not values.held:
            raise UnsupportedOptionError(
                "worker_checkpoint cannot be saved: it has objects with a registered saver, or "
                "is on several tasks, or TensorFlow does not execute eagerly. Track such "
                "objects in the checkpoint of all workers instead."
            )
        if plan.collective:
            key = next(entry.key for entry in plan.entries if entry.collective)
            raise UnsupportedOptionError(
                f"worker_checkpoint cannot be saved: {key!r} is a variable with "
                "synchronization=ON_READ, which all workers must read together. Track it in the "
                "checkpoint of all workers instead."
            )
        return OwnState(values, plan.shares[0])

    def restore(self, name: str, states: WorkerStates) -> None:
        """Restores this worker's state, from a checkpoint whose files have been verified.

        Args:
          name: The checkpoint's name, for messages.
          states: The workers' own states in it; `paths` is empty if it has none.

        Raises:
          CheckpointDamagedError: The files cannot be read.
          RestoreError: The states are of another number of workers, and the policy is "error"; or
            the state has less of the program's state than required.
          Exception: From TensorFlow, or from the function given as policy.
        """
        if not states.paths:
            _log.warning(
                "%s has no worker states; worker_checkpoint keeps its values on worker %d.",
                name,
                states.worker,
            )
        elif len(states.paths) == states.workers:
            path = states.paths[states.worker]
            with as_damage(path):
                program_match.check(self._checkpoint, path, self._require_match)
            _read(self._checkpoint, path)
        elif callable(self._on_resize):
            self._on_resize(states)
        elif self._on_resize == "error":
            raise RestoreError(
                f"{name} has the states of {len(states.paths)} workers, and there are "
                f"{states.workers} now. Start as many again, or choose what happens to their "
                "states: ManagerOptions.worker_state_on_resize."
            )
        else:
            self._resize(name, states)

    def _resize(self, name: str, states: WorkerStates) -> None:
        """Restores what can continue from any worker's state; logs which objects start afresh."""
        children = self._checkpoint._trackable_children()
        elastic = {
            child: thing
            for child, thing in children.items()
            if self._on_resize == "redivide" and getattr(thing, "elastic", False) is True
        }
        if elastic:
            _read(tf.train.Checkpoint(**elastic), states.paths[0])
        dropped = sorted(set(children) - set(elastic) - {"save_counter"})
        if dropped:
            _log.warning(
                "%s was saved by %d workers, and there are %d now. These objects of "
                "worker_checkpoint start afresh on worker %d: %s "
                "(ManagerOptions.worker_state_on_resize).",
                name,
                len(states.paths),
                states.workers,
                states.worker,
                ", ".join(dropped),
            )


def _read(checkpoint: Any, path: str) -> None:
    with as_damage(path):
        checkpoint.read(path).expect_partial()
