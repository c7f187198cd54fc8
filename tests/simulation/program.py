"""A training program around the manager's calls: it trains, saves, catches errors, and goes on.

The other runs look at what befalls a process; here nothing dies. Things go wrong in the *program*,
on one worker alone: a call raises, is left out, made again, interrupted, or takes too long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from distckpt import policies
from distckpt.calls.call_log import CallLog
from distckpt.calls.restore_calls import join_restore
from distckpt.calls.save_calls import SaveCalls
from distckpt.calls.save_request import Joined, Request
from distckpt.calls.save_schedule import SaveSchedule
from distckpt.calls.thread_turns import ThreadTurns
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.directory.pruner import Pruner
from distckpt.errors import ConfigurationError, DistckptError
from distckpt.ownership.fencing import Ownership
from distckpt.policies import EverySeconds, EverySteps, SavePolicy
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
from .threads import InterruptError, SimulatedFlight
from .world import Task, Violation

if TYPE_CHECKING:
    from .program_run import ProgramRun

STEP = 0.2  # seconds
POLICIES = (None, EverySteps(2), EverySeconds(0.5), EverySteps(2) | EverySeconds(1.0))


class MishapError(Exception):
    """What user code raises: a metric, a policy, a saver of the state."""


@dataclasses.dataclass(frozen=True)
class Fallible(SavePolicy):
    """Decides as another policy, unless something goes wrong with it on that worker.

    Attributes:
      policy: The other policy.
      fails: Returns whether something does.
    """

    policy: SavePolicy
    fails: Callable[[], bool]

    def decide(self, moment: policies.Moment) -> bool | None:
        """See the base class."""
        if self.fails():
            raise MishapError("the policy")
        return self.policy.decide(moment)

    def rest(self, clock: policies.Clock) -> float | None:
        """See the base class."""
        return self.policy.rest(clock)


@dataclasses.dataclass(frozen=True)
class Heard:
    """How one call ended on one worker.

    Attributes:
      step: The worker's.
      tail: Whether all is well since before the call.
      result: The name, None, or the error.
    """

    step: int
    tail: bool
    result: object


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
        self.ends: list[tuple[int, object]] = []  # of saves: the entry, and the name or the error
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
        self._pace = SaveSchedule(steps, interval, self._policy(), None)
        self._turns = ThreadTurns()
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

    def _policy(self) -> SavePolicy | None:
        policy = self._settings.policy
        return None if policy is None else Fallible(policy, lambda: self._mishap == "policy")

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
        other = self._begin(lambda: self._call(None, tail=tail)) if self._settings.threads else None
        result = self._call(mishap, tail=tail)
        again = mishap == "made again" or (self._settings.retries and not tail)
        if isinstance(result, BaseException) and (again or mishap == "synchronized"):
            if mishap == "synchronized":
                self._sync()
            self._call(None, tail=tail)
        elif mishap == "made again":
            self._call(None, tail=tail)
        while other is not None and not other.thread.dead:
            self._world.wait(self._world.now + 0.05)

    def _call(self, mishap: str | None, *, tail: bool) -> object:
        """Calls ``save()`` when it is this thread's turn; returns the name, None, or the error."""
        with self._turns:
            return self._call_in_turn(mishap, tail=tail)

    def _call_in_turn(self, mishap: str | None, *, tail: bool) -> object:
        self._mishap = mishap
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
        self.heard.append(Heard(self.step, tail, result))
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
        self._log.generation = -self._log.passed  # in case the restore fails
        self.step = state.restore(self.storage, RUN, name)
        self._log.generation = self._log.passed

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
        try:
            held = self._hold(joined)
            begun(held)
            held.hold()
        except BaseException as error:
            self.ends.append((joined.number, error))
            if background is not None and self.job.count > 1:
                background.fail(error)
            raise

        def finish() -> None:
            try:
                outcome = held.run()
            except BaseException as error:
                self.ends.append((joined.number, error))
                raise
            self.ends.append((joined.number, joined.name))
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
            state=state.SimulatedState(self.storage, lambda: self.step, self.job, self.index, 0),
            moment=joined.moment,
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
