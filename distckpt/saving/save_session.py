"""Runs one save: drives the protocol's state machine by performing its actions.

The session decides nothing: `core.protocol.chief_save` and `worker_save` say what is next, and the
other modules do it. It has two halves: `SaveSession.hold`, on the training thread, ends when the
state is held; `SaveSession.run` does the rest on any thread, because it uses no collective.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import actions, chief_save, messages, worker_save
from distckpt.core.protocol.messages import Opening, Outcome
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import (
    CommitUnknownError,
    DistckptError,
    Failure,
    RestoreError,
    SaveFailedError,
    WorkerLostError,
    named,
)
from distckpt.messaging import refusals
from distckpt.messaging.keys import Keys
from distckpt.messaging.waiting import Waiting
from distckpt.runtime.gc_pause import paused
from distckpt.runtime.run_parallel import run_all
from distckpt.saving import fault_points
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.save_progress import SaveProgress
from distckpt.saving.shard_writer import ShardWriter
from distckpt.saving.subject import Subject

_log = logging.getLogger("distckpt")
# What may come before a collective read.
_BEFORE_READING = (
    actions.SendReady,
    actions.AwaitReady,
    actions.AnnounceRendezvous,
    actions.AwaitOpening,
    actions.ReadTogether,
)


class SaveSession:
    """One call of ``save()`` on one worker.

    Args:
      coordinator: The job.
      keys: The keys of this save.
      subject: What this worker saves.
      writer: Writes this worker's share.
      chief: The chief's part; None on the other workers.
      patience: How long to wait for the other workers.
      phase_log: Notes the phases, and emits events.
      turn: How many answers this worker has already given under `keys`, at earlier moments.
      owe: Chief: called with the key and the text of an outcome that could not be published.

    Attributes:
      is_open: Whether this worker has done its part and does not know the outcome.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        keys: Keys,
        subject: Subject,
        writer: ShardWriter,
        chief: ChiefPart | None,
        *,
        patience: Patience,
        phase_log: PhaseLog,
        turn: int = 0,
        owe: Callable[[str, str], None] = lambda key, text: None,
    ) -> None:
        self.is_open = False
        self._coordinator = coordinator
        self._keys = keys
        self._subject = subject
        self._writer = writer
        self._chief = chief
        self._phase_log = phase_log
        self._turn = turn
        self._owe = owe
        self._progress = SaveProgress(coordinator, keys, subject.plan, patience, phase_log)
        self._waiting = self._make_waiting(patience)
        self._trouble: actions.Answered | actions.Lost | None = None
        self._looking = threading.Lock()
        self._opening: Opening | None = None
        self._outcome = Outcome(None)
        self._failure: Failure | None = None
        self._cause: BaseException | None = None
        self._machine = _machine(coordinator, subject)
        self._todo: deque[actions.Action] | None = None  # before the first half
        self._holding = False
        self._has_read = not subject.plan.collective

    def _make_waiting(self, patience: Patience) -> Waiting:
        return Waiting(
            self._coordinator,
            self._keys,
            f"save() of {self._subject.name}",
            patience,
            hearing=self._progress.hearing,
            heard=self._progress.reporter.news,
            moment=self._subject.moment,
        )

    @property
    def is_committed(self) -> bool:
        """Whether this worker knows that the checkpoint is committed."""
        committed = self._chief is not None and self._chief.committed
        return committed or self._outcome.name == self._subject.name

    def hold(self) -> None:
        """Does the part that needs a collective, if there is one. First, on the training thread.

        `run` raises its errors.
        """
        self._holding = True
        if not self._has_read:
            try:
                self._drive(lambda act: not self._has_read and isinstance(act, _BEFORE_READING))
            except BaseException:
                self._end()
                raise
        self._holding = False
        self._phase_log.held()

    def run(self) -> Outcome:
        """Does the rest of the save.

        Returns:
          The outcome, the same on all workers.

        Raises:
          DistckptError: The save failed, with the same error on all workers that are alive.
        """
        try:
            with self._progress.telling():
                self._drive(lambda action: True)
        finally:
            self._end()
        if self._outcome.warning:
            _log.warning("%s", self._outcome.warning)
        if self._failure is not None:
            error = self._failure.to_error(self._coordinator.index)
            self._phase_log.failed(error)
            raise error from self._cause
        return self._outcome

    def _end(self) -> None:
        self._subject.release()  # an error may keep this session in memory
        self._waiting.end()

    def _drive(self, wanted: Callable[[actions.Action], bool]) -> None:
        """Performs actions while there are any and the next one is `wanted`."""
        try:
            todo = self._todo
            if todo is None:  # not before: a large plan's fingerprint would stop training longer
                with paused():
                    todo = self._todo = deque(self._machine.start())
            while todo and wanted(todo[0]):
                event = self._perform(todo.popleft())
                if event is not None:
                    todo.extend(self._machine.on(event))
        except BaseException as error:
            self._interrupted(error)
            raise

    def _perform(self, action: actions.Action) -> actions.Event | None:
        me, step = self._coordinator.index, type(action).__name__
        fault_points.reached(me, self._subject.name, step, "before")
        self._progress.begins(action)
        event = self._do(action)
        fault_points.reached(me, self._subject.name, step, "after")
        return event

    def _do(self, action: actions.Action) -> actions.Event | None:
        match action:
            case actions.SendReady(fingerprint):
                self._publish(self._keys.ready(self._coordinator.index), fingerprint)
            case actions.AwaitReady(workers):
                return self._waiting.for_ready(workers)
            case actions.AnnounceRendezvous(rendezvous):
                self._publish(self._keys.rendezvous, messages.to_json(rendezvous))
                return self._waiting.for_rendezvous()
            case actions.ReadTogether():
                return self._attempt(self._read_together)
            case actions.AnnounceOpening(opening):
                self._coordinator.publish(self._keys.opening, messages.to_json(opening))
            case actions.AwaitOpening(rendezvous):
                return self._waiting.for_opening(rendezvous=rendezvous)
            case actions.Write(opening):
                return self._attempt(lambda: self._write(opening))
            case actions.SendAnswer(answer):
                self._send_answer(answer)
            case actions.AwaitAnswer(workers):
                return self._take_answer(self._waiting.for_answer(workers))
            case actions.Open() | actions.Merge() | actions.Commit() | actions.Prune():
                assert self._chief is not None
                return self._attempt(functools.partial(self._chief.perform, action))
            case actions.Tell(failure, warning):
                self._tell(failure, warning)
            case actions.Discard():
                self._discard()
            case actions.AwaitOutcome():
                return self._take_outcome(self._waiting.for_outcome())
            case actions.Finish(failure):
                self._failure = self._subject.name_in(failure)
        return None

    # --- Steps ----------------------------------------------------------------------------------

    def _attempt(self, step: Callable[[], actions.Event | None]) -> actions.Event | None:
        """Performs a step that may fail; the failure becomes an event."""
        try:
            return step()
        except Exception as error:
            self._cause = error
            failure = Failure.from_exception(error, self._coordinator.index)
            if isinstance(error, RestoreError):  # a file just written cannot be read back
                failure = dataclasses.replace(failure, kind=SaveFailedError.__name__)
            return actions.Failed(failure)

    def _read_together(self) -> actions.Event:
        assert self._holding, "a collective belongs on the training thread"
        self._has_read = True
        try:
            self._subject.state.read_together()
        except Exception as error:
            died = self._waiting.for_death()  # the most frequent cause; TensorFlow names no worker
            if died is not None:
                raise died.to_error() from error
            raise
        return actions.Read()

    def _write(self, opening: Opening) -> actions.Event:
        self._opening = opening
        share = self._subject.plan.shares[self._coordinator.index]
        copies = self._checksums()
        try:
            report = self._writer.write(
                opening,
                self._subject.state,
                share,
                self._is_over,
                self._progress.reporter,
                self._subject.own,
            )
            report = dataclasses.replace(
                report, copies=copies, phases=self._phase_log.phases(), moment=self._subject.moment
            )
            self._phase_log.written(report)
            return actions.Written(report)
        except SaveFailedError:
            if self._trouble is not None:
                return self._trouble
            raise

    def _checksums(self) -> tuple[int, ...] | None:
        """Returns the checksums of this worker's copies of what the other workers write."""
        tasks = self._subject.state.copies()
        if tasks is None:
            return None
        self._progress.reporter.enter("comparing")
        return tuple(run_all(tasks, self._writer.threads))

    def _is_over(self) -> bool:
        """Returns whether further writing is useless because a worker has failed or died."""
        if not self._coordinator.is_chief:
            return self._waiting.is_over()
        with self._looking:
            self._trouble = self._trouble or self._waiting.for_trouble()
            return self._trouble is not None

    def _discard(self) -> None:
        if self._chief is not None:
            self._chief.close()
        elif self._opening is not None:
            self._writer.discard(self._opening)

    def _tell(self, failure: Failure | None, warning: str = "") -> None:
        assert self._chief is not None
        self._outcome = self._chief.outcome(self._subject.name_in(failure), warning)
        text = messages.to_json(self._outcome)
        try:
            self._coordinator.publish(self._keys.outcome, text)
        except DistckptError as error:
            _log.warning("The other workers hear of the outcome at the next call: %s", error)
            self._owe(self._keys.outcome, text)

    def _send_answer(self, answer: messages.Report | messages.Refusal) -> None:
        self.is_open = isinstance(answer, messages.Report)
        try:
            if isinstance(answer, messages.Refusal):
                self._refuse(answer)
            else:
                with paused():
                    text = messages.to_json(answer)
                self._publish(self._keys.answer(self._coordinator.index, self._turn), text)
        except DistckptError:
            self.is_open = False  # the chief commits only with all answers
            raise

    def _publish(self, key: str, value: str) -> None:
        try:
            self._coordinator.publish(key, value)
        except WorkerLostError as error:
            _log.warning("%s", error)  # the wait that follows will fail, too

    def _refuse(self, refusal: messages.Refusal) -> None:
        try:
            refusals.publish(self._coordinator, self._keys, self._turn, refusal)
        except WorkerLostError as error:
            _log.warning("%s", error)  # the wait that follows will fail, too

    def _take_answer(self, event: actions.Event) -> actions.Event:
        if isinstance(event, actions.Answered):
            self._phase_log.answered(event.answer.worker)
        return event

    def _take_outcome(self, event: actions.Event) -> actions.Event:
        if isinstance(event, actions.Told):
            self.is_open = False
            self._outcome = event.outcome
            if event.outcome.failure is None:
                self._phase_log.committed(self._subject.plan)
        return event

    def _interrupted(self, error: BaseException) -> None:
        """Tells the other workers that this one was interrupted, so that none waits for it."""
        chief = self._chief
        if chief is not None and chief.committed:
            chief.close()
            self._tell(None)
            return
        self._phase_log.failed(error)
        failure = self._interruption(error)
        if chief is not None:
            chief.close()
            self._tell(failure)
            return
        refusal = messages.Refusal(self._coordinator.index, failure)
        try:
            if self._subject.plan.collective:
                incomplete = messages.Rendezvous("", False)
                self._publish(self._keys.rendezvous, messages.to_json(incomplete))
            self._refuse(refusal)
        except DistckptError as lost:
            _log.warning("%s", lost)

    def _interruption(self, error: BaseException) -> Failure:
        committing = self._chief is not None and self._chief.committing
        if isinstance(error, DistckptError) and not committing:
            return Failure.from_exception(error, self._coordinator.index)
        kind = CommitUnknownError if committing else SaveFailedError
        where = self._coordinator.name(self._coordinator.index)
        return Failure(
            kind.__name__,
            f"{where} was interrupted in save() of {self._subject.name} ({named(error)}). "
            "Save again.",
            self._coordinator.index,
            Failure.from_exception(error).trace,
        )


def _machine(
    coordinator: Coordinator, subject: Subject
) -> chief_save.ChiefSave | worker_save.WorkerSave:
    """Returns the state machine of this worker's side."""
    if coordinator.is_chief:
        what = f"{subject.name} (step {subject.label.step})"
        return chief_save.ChiefSave(subject.plan, subject.check, what, subject.moment)
    return worker_save.WorkerSave(
        coordinator.index, subject.name, subject.directory, subject.plan, subject.moment
    )
