"""Assembles what ``save()`` needs, and runs it, in the calling thread or in the background."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from distckpt.calls.save_request import Joined
from distckpt.calls.save_schedule import number
from distckpt.core import layout
from distckpt.core.protocol import moment as moments
from distckpt.core.protocol.messages import Outcome
from distckpt.core.protocol.moment import Moment
from distckpt.core.protocol.replica_check import Check
from distckpt.core.protocol.write_plan import Plan
from distckpt.directory.pruner import Pruner
from distckpt.errors import ConfigurationError, DistckptError, Failure, StateMismatchError
from distckpt.manager.construction import bundle_writer
from distckpt.manager.shared_parts import Common
from distckpt.runtime.gc_pause import paused
from distckpt.saving.background_save import BackgroundSave
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.committer import Committer
from distckpt.saving.early_abort import unreadable, withdraw
from distckpt.saving.manifest_builder import Label
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.save_session import SaveSession
from distckpt.saving.shard_writer import ShardWriter
from distckpt.saving.subject import Subject
from distckpt.state.base import CapturedState, OwnState
from distckpt.state.capture import Capture
from distckpt.state.numbering import SaveCounter, evaluate, step_or
from distckpt.state.save_options import call_back
from distckpt.state.worker_state import WorkerState
from distckpt.state.writing.tensorflow_ops import BundleMerger

_log = logging.getLogger("distckpt")


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a worker holds of its state for one save."""

    state: CapturedState
    plan: Plan
    own: OwnState | None
    check: Check


class Saving:
    """Saves for one manager; `calls.save_request.Saver`. Every worker; on the training thread.

    Args:
      common: What this part shares with the manager's other parts.
      target: The state of all workers.
      own: What only this worker has; None without a ``worker_checkpoint``.
      steps: The step counter, or None.
      path_of: Returns a checkpoint's path, as users see it, from its name.
    """

    def __init__(
        self,
        common: Common,
        target: tf.train.Checkpoint,
        own: WorkerState | None,
        steps: Any,
        path_of: Callable[[str], str],
    ) -> None:
        self._job = common.job
        self._common = common
        self._target = target
        self._own = own
        self._steps = steps
        self._path_of = path_of
        self.counter = SaveCounter(target)
        self._warned = False

    def counters(self, *, again: bool = False) -> Mapping[str, float]:
        """Returns what distinguishes the steps; see `core.protocol.moment.Moment`.

        Args:
          again: Whether the tracked objects are the same as in the call before.
        """
        if self._job.coordinator.count == 1:
            return {}
        try:
            if self._steps is not None:
                return {"step": self._step()}
            found = self._capture.counters(again=again)
        except ConfigurationError:
            raise
        except Exception as error:
            failure = unreadable(self._job.coordinator, error)
            raise failure.to_error(self._job.coordinator.index) from error
        if not found and not self._warned:
            self._warned = True
            _log.warning(
                "Nothing in the state counts the steps, so distckpt cannot notice workers that "
                "save different steps. Give the manager a step_counter, or track an integer "
                "variable that counts the steps (a Keras optimizer has one)."
            )
        return found

    def _step(self) -> float:
        try:
            found = number(evaluate(self._steps))
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise ConfigurationError(
                f"step_counter must be one finite number, but is {evaluate(self._steps)!r}."
            )
        return found

    def take_over(self, counter: int) -> None:
        """Sets ``save_counter`` to the chief's."""
        self.counter.take_over(counter)

    def adopt(self, outcome: Outcome) -> None:
        """Takes over the chief's list of checkpoints."""
        self._common.managed.adopt(outcome)

    def save(
        self,
        joined: Joined,
        background: BackgroundSave | None,
        begun: Callable[[SaveSession], None],
    ) -> None:
        """Saves, as `CheckpointManager.save` says; see `calls.save_request.Saver`."""
        name = joined.name
        step = step_or(layout.split_number(name)[1] or 0, self._steps)
        label = Label(step, joined.metrics, self._common.managed.rules)
        phase_log = PhaseLog(name, label, self._job.emit)
        try:
            held = self._hold(joined)
            session = self._session(joined, phase_log, held)
            begun(session)
            session.hold()
        except BaseException as error:
            phase_log.failed(error)
            if background is not None and self._job.coordinator.count > 1:
                background.fail(self._told(error))
            raise
        if background is not None and not held.state.held:
            _log.warning("%s is saved while training waits: its state cannot be held.", name)
            background = None
        if background is None:
            self._finish(session, joined)
        elif not background.start(
            lambda: self._finish(session, joined, in_background=True), f"save() of {name}"
        ):
            try:
                self._finish(session, joined)
            except DistckptError as error:
                background.fail(error)  # raised as late as on the other workers
        phase_log.resumed()

    def _told(self, error: BaseException) -> DistckptError:
        """Returns the error as the other workers hear it: an interrupt is raised only once."""
        if isinstance(error, DistckptError):
            return error
        me = self._job.coordinator.index
        return Failure.from_exception(error, me).to_error(me)

    def _check(self, joined: Joined) -> Check:
        """Returns which of the workers' copies this save compares, by the chief's save counter."""
        if self._job.coordinator.count == 1:
            return Check()
        options = self._common.options
        return Check(options.check_replicas, options.check_replicas_every, joined.call.counter)

    @functools.cached_property
    def _capture(self) -> Capture:
        coordinator = self._job.coordinator
        # TensorFlow's strategies mirror only the variables made under them. The program that gives
        # another coordinator is responsible for all of its state.
        split = "distributed" if coordinator.mirrors_only_distributed else "all"
        count, index = coordinator.count, coordinator.index
        writer = bundle_writer(self._common.options)
        return Capture(self._target, workers=count, index=index, split=split, writer=writer)

    def _hold(self, joined: Joined) -> _Held:
        """Captures this worker's share of the state, and what only this worker has."""
        coordinator, check = self._job.coordinator, self._check(joined)
        try:
            with paused():
                state, plan = self._capture.take(joined.options, check)
            own = self._own.take() if self._own is not None else None
            self._compare(joined.moment)
            return _Held(state, plan, own, check)
        except BaseException as error:
            if coordinator.count == 1:
                raise
            failure = withdraw(coordinator, joined.keys, joined.turn, error, joined.name)
            if not isinstance(error, Exception):
                raise
            raise failure.to_error(coordinator.index) from error

    def _compare(self, began: Moment) -> None:
        """Makes sure that the state was taken at the moment that the workers compare.

        Between the two this worker may have waited for others, while another thread trained.
        """
        if not began.is_known or self._steps is self._target.save_counter:
            return
        held = Moment.of(began.generation, self.counters(again=True))
        if held != began:
            coordinator = self._job.coordinator
            who = coordinator.name(coordinator.index)
            raise StateMismatchError(moments.went_on(who, began, held))

    def _session(self, joined: Joined, phase_log: PhaseLog, held: _Held) -> SaveSession:
        subject = Subject(
            name=joined.name,
            directory=self._common.directory,
            label=phase_log.label,
            plan=held.plan,
            state=held.state,
            check=held.check,
            own=held.own,
            moment=joined.moment,
            in_background=joined.call.background,
        )
        chief = None
        if self._job.coordinator.is_chief:
            chief = ChiefPart(self._committer, self._common.managed, subject, phase_log)
        return SaveSession(
            self._job.coordinator,
            joined.keys,
            subject,
            self._writer(),
            chief,
            patience=self._common.patience,
            phase_log=phase_log,
            turn=joined.turn,
            owe=self._job.log.owe,
        )

    def _writer(self) -> ShardWriter:
        coordinator, options = self._job.coordinator, self._common.options
        return ShardWriter(
            self._common.storage,
            self._common.directory,
            coordinator.index,
            coordinator.count,
            durable=options.durable,
            threads=options.write_threads,
        )

    @functools.cached_property
    def _committer(self) -> Committer:
        """The chief's committer. The first save makes it, and the pruner of the managed list."""
        here, durable = self._common, self._common.options.durable
        pruner = Pruner(here.storage, here.directory, here.ownership, durable=durable)
        here.managed.delete = pruner.prune
        return Committer(
            here.storage,
            here.directory,
            here.ownership,
            BundleMerger(),
            durable=durable,
            refresh=here.managed.refresh,
        )

    def _finish(self, session: SaveSession, joined: Joined, *, in_background: bool = False) -> None:
        """Does the rest of a save whose state is held. On any thread."""
        outcome = session.run()
        if self._job.coordinator.is_chief:
            self._job.log.all_came(joined.number)
        else:
            self._common.managed.adopt(outcome)
        try:
            call_back(joined.options, self._path_of(joined.name))
        except BaseException as error:
            # In the background, not even SystemExit ends the program: the checkpoint is saved.
            if not (in_background or isinstance(error, Exception)):
                raise
            _log.exception(
                "A write callback of %s has failed. The checkpoint is saved.", joined.name
            )
