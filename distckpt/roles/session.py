"""Runs one save: drives the protocol's state machine by performing its actions.

Nothing here decides anything: `core.protocol` says what is next, the other roles do it. It has two
halves: `SaveSession.hold`, on the training thread, ends when the state is held; `SaveSession.run`
may go on from there on any thread, for no collective is among what it does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from distckpt.coordination.base import Coordinator
from distckpt.core import messages, protocol, steps
from distckpt.core.delays import Patience
from distckpt.core.manifest import Manifest
from distckpt.core.messages import Opening, Outcome
from distckpt.core.plan import Plan
from distckpt.core.replicas import Check
from distckpt.errors import (
    CommitUnknownError,
    Failure,
    RestoreError,
    SaveFailedError,
    WorkerLostError,
)
from distckpt.roles import fault_points, host, progress
from distckpt.roles.collector import paused
from distckpt.roles.committer import Committer
from distckpt.roles.keys import Keys
from distckpt.roles.parallel import run_all
from distckpt.roles.progress import Hearing, Reporter
from distckpt.roles.recorder import Label
from distckpt.roles.story import Story
from distckpt.roles.waiting import Waiting
from distckpt.roles.writer import THREADS, Writer
from distckpt.state.base import CapturedState, OwnState

_log = logging.getLogger("distckpt")
# What may come before a collective read.
_BEFORE_READING = (
    steps.SendReady,
    steps.AwaitReady,
    steps.AnnounceRoll,
    steps.AwaitOpening,
    steps.ReadTogether,
)
# What a worker says that it does while it performs a step; the writer says more.
_PHASES: dict[type[steps.Action], str] = {
    steps.AwaitReady: "waiting for all to come",
    steps.ReadTogether: "reading what takes a collective",
    steps.Open: "opening the save",
    steps.AwaitOpening: "waiting for the chief to open the save",
    steps.Write: "writing",
    steps.AwaitAnswer: "waiting for the others",
    steps.Merge: "merging",
    steps.Commit: "committing",
    steps.AwaitOutcome: "waiting for the chief's last word",
}


class Bookkeeper(Protocol):
    """What the chief does with a commit: TensorFlow's `checkpoint` file, retention."""

    def record(self, manifest: Manifest, folder: str) -> None:
        """Puts the new checkpoint on the list, by way of the pending folder. Never raises."""

    def prune(self, folder: str) -> tuple[str, ...]:
        """Deletes what retention gives up, and returns the names. Never raises."""

    def outcome(self, name: str) -> Outcome:
        """Returns what all workers must know of the list, as `prune` will leave it."""


class SaveSession:
    """One call of ``save()`` on one worker.

    Args:
      coordinator: The job.
      writer: Writes this worker's share.
      committer: The chief's committer; None on the others.
      books: The chief's bookkeeper; None on the others.
      keys: Names of the keys of this save.
      name: The checkpoint's name.
      directory: The directory, absolute.
      label: What the manifest says beside what was written.
      plan: This worker's plan.
      state: The held values.
      patience: How long to wait for others.
      check: What of the workers' copies is compared.
      own: What only this worker has; None if the program gave nothing of the kind.
      story: What has happened so far, and who is to hear of it.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        writer: Writer,
        committer: Committer | None,
        books: Bookkeeper | None,
        keys: Keys,
        *,
        name: str,
        directory: str,
        label: Label,
        plan: Plan,
        state: CapturedState,
        patience: Patience,
        check: Check = Check(),  # noqa: B008 - it is frozen
        own: OwnState | None = None,
        story: Story | None = None,
    ) -> None:
        self._story = story or Story(name, label)
        self._coordinator = coordinator
        self._writer = writer
        self._committer = committer
        self._books = books
        self._keys = keys
        self._name = name
        self._label = label
        self._plan = plan
        self._state = state
        self._own = own
        self._started = host.monotonic()
        self._patience = patience
        self._reporter = Reporter(coordinator, keys, patience.interval, self._story.enter)
        self._hearing = Hearing(keys)
        self._waiting = Waiting(
            coordinator,
            keys,
            f"save() of {name}",
            patience,
            hearing=self._hearing,
            heard=self._reporter.news,
        )
        self._trouble: steps.Answered | steps.Lost | None = None
        self._looking = threading.Lock()
        self._opening: Opening | None = None
        self._outcome = Outcome(None)
        self._failure: Failure | None = None
        self._cause: BaseException | None = None
        self._committing = False
        self._committed = False
        self._machine: protocol.ChiefSave | protocol.WorkerSave
        if coordinator.is_chief:
            self._machine = protocol.ChiefSave(plan, check, f"{name} (step {label.step})")
        else:
            self._machine = protocol.WorkerSave(coordinator.index, name, directory, plan)
        self._todo = deque(self._machine.start())
        self._holding = False
        self._has_read = not plan.collective

    def hold(self) -> None:
        """Does the part that needs a collective, if there is any. On the training thread, first.

        What goes wrong, `run` raises.
        """
        self._holding = True
        self._drive(lambda: not self._has_read and isinstance(self._todo[0], _BEFORE_READING))
        self._holding = False
        self._story.held()

    def run(self) -> Outcome:
        """Does all the rest.

        Returns:
          The outcome, the same on all workers.

        Raises:
          DistckptError: The save failed, with the same error on all workers that still live.
        """
        alone = self._coordinator.count == 1
        telling = progress.telling(self._reporter, self._patience.interval)
        try:
            with contextlib.nullcontext() if alone else telling:
                self._drive(lambda: True)
        finally:
            self._state.release()  # an error, and so this session, may be kept for long
            if self._own is not None:
                self._own.values.release()
        if self._outcome.warning:
            _log.warning("%s", self._outcome.warning)
        if self._failure is not None:
            error = self._failure.to_error(self._coordinator.index)
            self._story.failed(error)
            raise error from self._cause
        return self._outcome

    def _drive(self, wanted: Callable[[], bool]) -> None:
        """Performs actions as long as there are any and the next one is `wanted`."""
        try:
            while self._todo and wanted():
                event = self._perform(self._todo.popleft())
                if event is not None:
                    self._todo.extend(self._machine.on(event))
        except BaseException as error:
            self._interrupted(error)
            raise

    def _perform(self, action: steps.Action) -> steps.Event | None:
        me, step = self._coordinator.index, type(action).__name__
        fault_points.reached(me, self._name, step, "before")
        self._say_phase(action)
        event = self._do(action)
        fault_points.reached(me, self._name, step, "after")
        return event

    def _say_phase(self, action: steps.Action) -> None:
        phase = _PHASES.get(type(action))
        if phase is None:
            return
        if isinstance(action, steps.AwaitAnswer):
            # Whoever waits for the chief hears of the progress of those that the chief waits for.
            total = sum(self._plan.bytes_per_worker)
            answered = total - sum(self._plan.bytes_per_worker[w] for w in action.workers)
            self._reporter.enter(
                phase, total, lambda: answered + self._hearing.bytes(action.workers)
            )
        else:
            self._reporter.enter(phase)

    def _do(self, action: steps.Action) -> steps.Event | None:
        match action:
            case steps.SendReady(fingerprint):
                self._publish(self._keys.ready(self._coordinator.index), fingerprint)
            case steps.AwaitReady(workers):
                return self._waiting.for_ready(workers)
            case steps.AnnounceRoll(roll):
                self._publish(self._keys.roll, messages.to_json(roll))
                return self._waiting.for_roll()
            case steps.ReadTogether():
                return self._attempt(self._read_together)
            case steps.Open():
                return self._attempt(self._open)
            case steps.AnnounceOpening(opening):
                self._coordinator.publish(self._keys.opening, messages.to_json(opening))
            case steps.AwaitOpening(roll):
                return self._take_opening(self._waiting.for_opening(roll=roll))
            case steps.Write(opening):
                return self._attempt(lambda: self._write(opening), pause=False)
            case steps.SendAnswer(answer):
                self._publish(self._keys.answer(self._coordinator.index), messages.to_json(answer))
            case steps.AwaitAnswer(workers):
                return self._take_answer(self._waiting.for_answer(workers))
            case steps.Merge(reports):
                return self._attempt(lambda: self._merge(reports))
            case steps.Commit(reports):
                return self._attempt(lambda: self._commit(reports))
            case steps.Prune():
                return self._prune()
            case steps.Discard():
                self._discard()
            case steps.Tell(failure, warning):
                self._tell(failure, warning)
            case steps.AwaitOutcome():
                return self._take_outcome(self._waiting.for_outcome())
            case steps.Finish(failure):
                self._failure = failure
        return None

    # --- Steps ----------------------------------------------------------------------------------

    def _attempt(self, step: Callable[[], steps.Event], *, pause: bool = True) -> steps.Event:
        """Performs a step that may fail; the failure becomes an event.

        Args:
          step: What to do.
          pause: Whether it is short, and better not disturbed by the garbage collector.
        """
        try:
            with paused() if pause else contextlib.nullcontext():
                return step()
        except Exception as error:
            self._cause = error
            failure = Failure.from_exception(error, self._coordinator.index)
            if isinstance(error, RestoreError):  # what has just been written cannot be read back
                failure = dataclasses.replace(failure, kind=SaveFailedError.__name__)
            return steps.Failed(failure)

    def _afterwards(self, step: Callable[[], None]) -> None:
        """Performs a step after the commit: whatever happens, the save has succeeded."""
        try:
            step()
        except Exception:
            _log.exception("%s is committed, but not everything after that went well.", self._name)

    def _read_together(self) -> steps.Event:
        assert self._holding, "a collective belongs on the training thread"
        self._has_read = True
        try:
            self._state.read_together()
        except Exception as error:
            died = self._waiting.for_death()  # the usual cause; TensorFlow does not say whose
            if died is not None:
                raise died.to_error() from error
            raise
        return steps.Read()

    def _open(self) -> steps.Event:
        assert self._committer is not None
        self._opening = self._committer.open(self._name, self._plan.fingerprint)
        return steps.Opened(self._opening)

    def _write(self, opening: Opening) -> steps.Event:
        self._opening = opening
        share = self._plan.shares[self._coordinator.index]
        copies = self._checksums()
        try:
            report = self._writer.write(
                opening, self._state, share, self._is_over, self._reporter, self._own
            )
            report = dataclasses.replace(report, copies=copies, phases=self._story.phases())
            self._story.written(report)
            return steps.Written(report)
        except SaveFailedError:
            if self._trouble is not None:
                return self._trouble
            raise

    def _checksums(self) -> tuple[int, ...] | None:
        """Returns the checksums of this worker's copies of what others write."""
        tasks = self._state.copies()
        if tasks is None:
            return None
        self._reporter.enter("comparing")
        return tuple(run_all(tasks, THREADS))

    def _is_over(self) -> bool:
        """Returns whether it is of no use to write on: somebody has failed, or died."""
        if not self._coordinator.is_chief:
            return self._waiting.is_over()
        with self._looking:
            self._trouble = self._trouble or self._waiting.for_trouble()
            return self._trouble is not None

    def _merge(self, reports: tuple[messages.Report, ...]) -> steps.Event:
        assert self._committer is not None
        assert self._opening is not None
        self._story.gathered()
        self._committer.merge(self._opening, reports)
        return steps.Merged()

    def _commit(self, reports: tuple[messages.Report, ...]) -> steps.Event:
        assert self._committer is not None
        assert self._opening is not None
        assert self._books is not None
        seconds = host.monotonic() - self._started
        # The chief has done something since its own report.
        mine = dataclasses.replace(reports[0], phases=self._story.phases())
        self._committing = True
        manifest = self._committer.commit(self._opening, (mine, *reports[1:]), self._label, seconds)
        self._committed = True
        books, folder = self._books, self._committer.folder(self._opening)
        self._afterwards(lambda: books.record(manifest, folder))
        self._afterwards(lambda: self._story.committed(self._plan))
        return steps.Committed()

    def _prune(self) -> steps.Event:
        assert self._committer is not None
        assert self._opening is not None
        assert self._books is not None
        books, folder = self._books, self._committer.folder(self._opening)
        self._afterwards(lambda: self._story.pruned(books.prune(folder)))
        self._afterwards(self._close)
        return steps.Pruned()

    def _close(self) -> None:
        assert self._committer is not None
        assert self._opening is not None
        self._committer.close(self._opening)

    def _discard(self) -> None:
        if self._opening is None:
            return
        if self._committer is not None:
            self._committer.discard(self._opening)
        else:
            self._writer.discard(self._opening)

    def _tell(self, failure: Failure | None, warning: str = "") -> None:
        if failure is None:
            assert self._books is not None
            outcome = self._books.outcome(self._name)
            self._outcome = dataclasses.replace(outcome, warning=warning)
        else:
            self._outcome = Outcome(failure)
        try:
            self._coordinator.publish(self._keys.outcome, messages.to_json(self._outcome))
        except WorkerLostError as error:
            _log.warning("The others are not told how it ended: %s", error)

    def _publish(self, key: str, value: str) -> None:
        try:
            self._coordinator.publish(key, value)
        except WorkerLostError as error:
            _log.warning("%s", error)  # the wait that follows will find the same

    def _take_opening(self, event: steps.Event) -> steps.Event:
        if isinstance(event, steps.Opened):
            self._opening = event.opening
        return event

    def _take_answer(self, event: steps.Event) -> steps.Event:
        if isinstance(event, steps.Answered):
            self._story.answered(event.answer.worker)
        return event

    def _take_outcome(self, event: steps.Event) -> steps.Event:
        if isinstance(event, steps.Told):
            self._outcome = event.outcome
            if event.outcome.failure is None:
                self._story.committed(self._plan)
        return event

    def _interrupted(self, error: BaseException) -> None:
        """Lets the others know that this worker gave up, so that none waits in vain."""
        if not self._committed:
            self._story.failed(error)
        where = self._coordinator.name(self._coordinator.index)
        kind = CommitUnknownError if self._committing else SaveFailedError
        failure = Failure(
            kind.__name__,
            f"{where} was interrupted in save() of {self._name} ({type(error).__name__}: {error}).",
            self._coordinator.index,
            Failure.from_exception(error).trace,
        )
        if self._committed:
            self._close()
            self._tell(None)
        elif self._committer is not None:
            self._discard()
            self._tell(failure)
        else:
            if self._plan.collective:
                self._publish(self._keys.roll, messages.to_json(messages.Roll("", False)))
            refusal = messages.Refusal(self._coordinator.index, failure)
            key = self._keys.answer(self._coordinator.index)
            self._publish(key, messages.to_json(refusal))
