"""Puts together what one call of ``save()`` takes, and has it done, here or in the background."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import deque
from collections.abc import Callable

import tensorflow as tf

from distckpt.coordination.base import Coordinator
from distckpt.core.plan import Plan
from distckpt.core.replicas import Check
from distckpt.roles.collector import paused
from distckpt.roles.committer import Committer
from distckpt.roles.flight import Flight
from distckpt.roles.keys import Keys
from distckpt.roles.ownership import ownership_of
from distckpt.roles.pruner import Pruner
from distckpt.roles.recorder import Label
from distckpt.roles.session import SaveSession
from distckpt.roles.story import Story
from distckpt.roles.withdrawal import withdraw
from distckpt.roles.writer import Writer
from distckpt.state.base import CapturedState, OwnState
from distckpt.state.capture import Capture
from distckpt.state.shards import BundleMerger
from distckpt.state.worker_state import WorkerState
from distckpt.wiring.common import Common

_log = logging.getLogger("distckpt")
# Keys of this many calls are kept, for workers that are late to read them.
_KEPT_CALLS = 8


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a worker holds of its state for one save."""

    state: CapturedState
    plan: Plan
    own: OwnState | None
    check: Check


class Saving:
    """Saves for one manager. Every worker; on the training thread.

    Args:
      common: What it shares with the manager's other parts.
      target: The state of all workers.
      own: What only this worker has; None if the program gave nothing of the kind.
    """

    def __init__(
        self, common: Common, target: tf.train.Checkpoint, own: WorkerState | None
    ) -> None:
        self._job = common.job
        self._common = common
        self._target = target
        self._own = own
        self._capture: Capture | None = None
        self._committer: Committer | None = None
        self._turns = itertools.count()
        self._old_keys: deque[Keys] = deque(maxlen=_KEPT_CALLS)

    def save(
        self,
        name: str,
        label: Label,
        options: tf.train.CheckpointOptions | None,
        then: Callable[[], object],
        flight: Flight | None,
    ) -> None:
        """Saves, as `CheckpointManager.save` says.

        Args:
          name: The checkpoint's name.
          label: What the manifest is to say of it.
          options: What the call was given.
          then: Called after the commit, on the thread that has waited for it.
          flight: Takes over once the state is held; None if the call is to wait for the commit.
        """
        keys, asked = self._job.keys("save"), self._job.connect()[1].asked
        story = Story(name, label, self._job.emit)
        try:
            held = self._hold(keys, name, options)
        except Exception as error:
            story.failed(error)
            raise
        session = self._session(keys, story, name, held)
        session.hold()
        if flight is not None and held.state.held:
            flight.start(lambda: self._finish(session, keys, asked, then), f"save() of {name}")
        else:
            if flight is not None:
                _log.warning("%s is saved without enable_async: its state cannot be held.", name)
            self._finish(session, keys, asked, then)
        story.resumed()

    def _check(self) -> Check:
        """Returns what this save compares of the workers' copies."""
        if self._job.coordinator.count == 1:
            return Check()
        options, turn = self._common.options, next(self._turns)
        return Check(options.check_replicas, options.check_replicas_every, turn)

    def _hold(self, keys: Keys, name: str, options: tf.train.CheckpointOptions | None) -> _Held:
        """Takes hold of this worker's share of the state, and of what only this worker has."""
        coordinator, check = self._job.coordinator, self._check()
        if self._capture is None:
            count, index, split = coordinator.count, coordinator.index, _split(coordinator)
            self._capture = Capture(self._target, workers=count, index=index, split=split)
        try:
            with paused():
                state, plan = self._capture.take(options, check)
                own = self._own.take() if self._own is not None else None
                return _Held(state, plan, own, check)
        except Exception as error:
            if coordinator.count == 1:
                raise
            raise withdraw(coordinator, keys, error, name).to_error(coordinator.index) from error

    def _session(self, keys: Keys, story: Story, name: str, held: _Held) -> SaveSession:
        is_chief = self._job.coordinator.is_chief
        return SaveSession(
            self._job.coordinator,
            self._writer(),
            self._chiefs_committer() if is_chief else None,
            self._common.books if is_chief else None,
            keys,
            name=name,
            directory=self._common.directory,
            label=story.label,
            plan=held.plan,
            state=held.state,
            patience=self._common.patience,
            check=held.check,
            own=held.own,
            story=story,
        )

    def _writer(self) -> Writer:
        coordinator, options = self._job.coordinator, self._common.options
        return Writer(
            self._common.storage,
            self._common.directory,
            coordinator.index,
            coordinator.count,
            durable=options.durable,
            threads=options.write_threads,
        )

    def _chiefs_committer(self) -> Committer:
        """Returns the committer, made at the first save; the books get their pruner with it."""
        if self._committer is None:
            here, durable = self._common, self._common.options.durable
            owner = ownership_of(here.storage, here.directory, durable=durable)
            pruner = Pruner(here.storage, here.directory, owner, durable=durable)
            here.books.delete = pruner.prune
            self._committer = Committer(
                here.storage,
                here.directory,
                owner,
                BundleMerger(),
                durable=durable,
                on_takeover=here.books.reload,
            )
        return self._committer

    def _finish(
        self, session: SaveSession, keys: Keys, asked: int, then: Callable[[], object]
    ) -> None:
        """Does what is left when the state is held. On any thread.

        Args:
          session: The save.
          keys: Its keys.
          asked: How many questions the workers had agreed on when it began.
          then: Called after the commit.
        """
        coordinator, agreement = self._job.connect()
        if coordinator.is_chief and len(self._old_keys) == _KEPT_CALLS:
            coordinator.forget(self._old_keys[0].all(coordinator.count))
        self._old_keys.append(keys)
        outcome = session.run()
        if coordinator.is_chief:
            agreement.forget(asked)
        else:
            self._common.books.adopt(outcome)
        then()


def _split(coordinator: Coordinator) -> str:
    """Returns what is known to be equal on all workers, see `state.capture.capture`.

    TensorFlow's strategies mirror the variables made under them, and no others. Where another
    coordinator was given, the caller vouches for all of the state.
    """
    return "distributed" if coordinator.mirrors_only_distributed else "all"
