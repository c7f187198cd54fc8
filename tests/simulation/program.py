"""A training program around the manager's calls: it trains, saves, catches errors, and goes on.

The other runs look at what befalls a process; here nothing dies. Things go wrong in the *program*,
on one worker alone: a call raises, is left out, made again, interrupted, or takes too long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from distckpt.calls.call_log import CallLog
from distckpt.calls.restore_calls import join_restore
from distckpt.calls.save_calls import SaveCalls
from distckpt.calls.save_request import Joined, Request
from distckpt.calls.save_schedule import SaveSchedule
from distckpt.core.protocol.moment import Moment
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.directory.pruner import Pruner
from distckpt.errors import ConfigurationError, DistckptError
from distckpt.ownership.fencing import Ownership
from distckpt.policies import EverySeconds, EverySteps
from distckpt.restoring.restore_session import RestoreSession
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.committer import Committer
from distckpt.saving.early_abort import withdraw
from distckpt.saving.manifest_builder import Label
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.save_session import SaveSession
from distckpt.saving.shard_writer import ShardWriter
from distckpt.saving.subject import Subject

from . import state
from .network import SimulatedCoordinator, SimulatedJob
from .oracle import RUN
from .storage import SimulatedStorage
from .world import Task, Violation, World

if TYPE_CHECKING:
    from .program_run import ProgramRun

STEP = 0.2  # seconds
POLICIES = (None, EverySteps(2), EverySeconds(0.5), EverySteps(2) | EverySeconds(1.0))


class MishapError(Exception):
    """What user code raises: a metric, a policy, a saver of the state."""


class InterruptError(BaseException):
    """Ctrl-C, which the program catches."""


class SimulatedFlight:
    """`saving.background_save.Flight` with a task of the world in place of a thread.

    Args:
      begin: Lets work begin on a task of its own.
      world: The world.
    """

    def __init__(self, begin: Callable[[Callable[[], None]], Task], world: World) -> None:
        self._begin = begin
        self._world = world
        self._task: Task | None = None
        self._error: BaseException | None = None
        self._done = True

    @property
    def busy(self) -> bool:
        """See `BackgroundSave`."""
        return not self._done

    @property
    def pending(self) -> bool:
        """See `BackgroundSave`."""
        return self._task is not None or self._error is not None

    @property
    def has_failed(self) -> bool:
        """See `BackgroundSave`."""
        return self._done and self._error is not None

    def fail(self, error: BaseException) -> None:
        """See `BackgroundSave`."""
        self._error = error

    def start(self, work: Callable[[], object], what: str) -> bool:
        """See `BackgroundSave`."""

        def run() -> None:
            try:
                work()
            except (Exception, InterruptError) as error:
                self._error = error
            self._done = True

        self._done = False
        self._task = self._begin(run)
        return True

    def wait(self) -> None:
        """See `BackgroundSave`."""
        while not self._done:
            self._world.wait(self._world.now + 0.05)

    def finish(self) -> None:
        """See `BackgroundSave`."""
        self.wait()
        self._task = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def dismiss(self) -> None:
        """See `BackgroundSave`."""
        self.wait()
        self._error = None
        self._task = None


@dataclasses.dataclass(frozen=True)
class Heard:
    """How one call ended on one worker.

    Attributes:
      step: The worker's.
      tail: Whether all is well since before the call.
      result: The name, None, or the error.
      joined: The number of the entry that it took part in; None if in none.
    """

    step: int
    tail: bool
    result: object
    joined: int | None


class Program:
    """One worker: its state, its manager's parts, and what its program does.

    Args:
      run: The run.
      job: The job.
      index: Which worker.
      storage: Its view of the disk.
    """

    def __init__(
        self, run: ProgramRun, job: SimulatedJob, index: int, storage: SimulatedStorage
    ) -> None:
        self.job = job
        self.index = index
        self.storage = storage
        self.name = f"{job.number}/{index}"
        self.host = f"host-{index}"
        self.pid = 100 * job.number + index
        self.tokens = 0
        self.heard: list[Heard] = []
        self.step = 0
        self.counter = 0
        self.is_calling = False
        self._run = run
        self._world = run.world
        self._settings = run.settings
        self._coordinator = SimulatedCoordinator(run.world, job, index)
        self._mishap: str | None = None
        self._joined: int | None = None
        self._wire()

    @property
    def term(self) -> int:
        """The term that it has taken, or 0."""
        return self._ownership.term or 0

    def _wire(self) -> None:
        settings = self._settings
        self._ownership = Ownership(self.storage, RUN, durable=True)
        self._committer: Committer | None = None
        self._log = CallLog(self._coordinator, "sim")
        steps = (lambda: self.step) if settings.counted else None
        interval = settings.interval if settings.counted else None
        self._pace = SaveSchedule(steps, interval, settings.policy, None)
        self._background = SimulatedFlight(self._begin, self._world)
        self.calls = SaveCalls(
            self._coordinator,
            self._log,
            self._pace,
            self._background,  # type: ignore[arg-type]
            self,
            prefix="ckpt",
            deadline=settings.deadline,
        )

    def _open_directory(self) -> None:
        self.managed = ManagedCheckpoints(self.storage, RUN, 2, None, durable=True)
        if self.index == 0:
            pruner = Pruner(self.storage, RUN, self._ownership, durable=True, threads=1)
            self.managed.delete = pruner.prune
            self._committer = self._run.committer(self, self._ownership)

    def _begin(self, work: Callable[[], None]) -> Task:
        return self._run.begin(self, work)

    # --- What the program does ------------------------------------------------------------------

    def work(self) -> None:
        """Restores, then trains and saves; the last calls come when nothing goes wrong any more."""
        self._open_directory()
        self._restore()
        for call in range(self._settings.calls):
            self._train()
            self._save(self._run.mishaps.get((self.index, call)), tail=False)
        self._background.wait()
        self._meet()
        self._world.faults.clear()
        for _ in range(self._settings.tail):
            self._train()
            self._save(None, tail=True)
        self._sync()
        self._meet()

    def _train(self) -> None:
        self.step += 1
        self._world.wait(self._world.now + STEP)
        if self._settings.in_step:
            self._meet()

    def _meet(self) -> None:
        self._run.meet(self)

    def _save(self, mishap: str | None, *, tail: bool) -> None:
        if mishap == "left out":
            return
        result = self._call(mishap, tail=tail)
        again = mishap == "made again" or (self._settings.retries and not tail)
        if isinstance(result, BaseException) and (again or mishap == "synchronized"):
            if mishap == "synchronized":
                self._sync()
            self._call(None, tail=tail)
        elif mishap == "made again":
            self._call(None, tail=tail)

    def _call(self, mishap: str | None, *, tail: bool) -> object:
        """Calls ``save()``; returns the name, None, or the error."""
        self._mishap, self._joined = mishap, None
        if mishap in ("interrupted", "stalled"):
            self._run.strike_soon(self, mishap)
        wanted = self._wanted()
        request = Request(
            check=True,
            background=self._settings.background,
            skip_when_busy=self._settings.background and self._settings.skip,
            metrics=self._metrics,
            number=self._number,
            expected=lambda: wanted,
        )
        result: object
        self.is_calling = True
        try:
            result = self.calls.save(request)
        except (DistckptError, MishapError, InterruptError) as error:
            result = error
        finally:
            self.is_calling = False
        self._pace.returned()
        if self._world.told is not None:
            self._world.tell(self.name, f"step {self.step}: save() ended: {result!r}")
        self.heard.append(Heard(self.step, tail, result, self._joined))
        if wanted is not None and isinstance(result, str) and result != f"ckpt-{wanted}":
            raise Violation(f"{self.name} saves number {wanted} and hears of {result}")
        return result

    def _sync(self) -> None:
        try:
            self.calls.sync()
        except (DistckptError, MishapError, InterruptError) as error:
            self._world.tell(self.name, f"sync() ended: {error!r}")

    def _metrics(self) -> dict[str, float]:
        if self._mishap == "metrics":
            raise ConfigurationError("metrics['loss'] must be a number")
        return {}

    def _number(self) -> tuple[int, int]:
        if self._mishap == "number":
            raise MishapError("the number")
        self.counter += 1
        wanted = self._wanted()
        return self.counter, self.counter if wanted is None else wanted

    def _wanted(self) -> int | None:
        """Returns the number that the program gives; None to leave it to the manager."""
        numbers = {"none": None, "step": self.step, "same": 1}
        number = numbers[self._settings.numbers]
        is_other = number is not None and self._mishap == "another number"
        return number + 1000 if is_other else number

    def _restore(self) -> None:
        patience = Patience(self._settings.deadline)
        keys = join_restore(self._coordinator, self._log, patience)
        RestoreSession(
            self._coordinator,
            self.storage,
            RUN,
            self.managed,
            keys,
            self._take,
            patience=patience,
            verify_data=True,
            memory=self._ownership.memory if self.index == 0 else None,
        ).run()

    def _take(self, name: str, count: Callable[[int], None]) -> None:
        self._log.generation = self._log.passed
        self.step = state.restore(self.storage, RUN, name)

    # --- `calls.save_request.Saver` ---------------------------------------------------------------

    def counters(self) -> dict[str, float]:
        """See `Saver`."""
        return {"step": self.step} if self._settings.counted else {}

    def take_over(self, counter: int) -> None:
        """See `Saver`."""
        self.counter = counter

    def adopt(self, outcome) -> None:
        """See `Saver`."""
        self.managed.adopt(outcome)

    def save(self, joined: Joined, background, begun) -> None:
        """See `Saver`."""
        self._joined = joined.number
        try:
            held = self._hold(joined)
            begun(held)
            held.hold()
        except BaseException as error:
            if background is not None and self.job.count > 1:
                background.fail(error)
            raise

        def finish() -> None:
            outcome = held.run()
            if self.index == 0:
                self._log.all_came(joined.number)
            else:
                self.managed.adopt(outcome)

        if background is None:
            finish()
        else:
            background.start(finish, "save()")

    def _hold(self, joined: Joined) -> SaveSession:
        if self._mishap == "unreadable":
            error = MishapError("the state")
            failure = withdraw(self._coordinator, joined.keys, joined.turn, error, joined.name)
            raise failure.to_error(self.index) from error
        workers = self.job.count
        subject = Subject(
            name=joined.name,
            directory=RUN,
            label=Label(self.step),
            plan=state.plan_for(workers, collective=False),
            state=state.SimulatedState(self.storage, self.step, self.job, self.index, 0),
            moment=self._held_moment(joined),
        )
        log = PhaseLog(joined.name, subject.label)
        is_chief = self._committer is not None
        return SaveSession(
            self._coordinator,
            joined.keys,
            subject,
            ShardWriter(self.storage, RUN, self.index, workers, durable=True, threads=1),
            ChiefPart(self._committer, self.managed, subject, log) if is_chief else None,
            patience=Patience(self._settings.deadline),
            phase_log=log,
            turn=joined.turn,
        )

    def _held_moment(self, joined: Joined) -> Moment:
        return joined.moment
