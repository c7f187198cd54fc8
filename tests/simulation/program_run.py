"""One run of a job whose *program* has mishaps, see `program`; what must be true of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import CommitUnknownError, DeadlineExceededError
from distckpt.ownership.fencing import Ownership
from distckpt.policies import SavePolicy
from distckpt.saving.committer import Committer

from . import state
from .choices import Choices
from .disk import Disk
from .network import SimulatedJob
from .oracle import RUN, Oracle
from .program import POLICIES, Program
from .storage import Faults, SimulatedStorage
from .threads import InterruptError
from .world import ProcessDied, Task, Violation, World

# The tamest first. What the program does, or what befalls it, in one call on one worker.
MISHAPS = (
    "metrics",
    "number",
    "unreadable",
    "left out",
    "made again",
    "synchronized",
    "interrupted",
    "stalled",
)
# One that needs a program which gives numbers; only a focus has it.
ANOTHER_NUMBER = "another number"
# One that needs a policy; only a focus has it.
POLICY = "policy"
# Those after which a state without counters cannot tell one step from another.
UNNOTICEABLE = ("left out", "made again", "synchronized", "stalled", "interrupted", POLICY)
SOON = 60  # events
STALLS = (1.0, 7.0, 12.0, 25.0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is set up.

    Attributes:
      workers: How many.
      counted: Whether the state has a step counter.
      in_step: Whether training needs all workers in each step.
      background: Whether saves are asynchronous.
      skip: Whether a save in flight lets calls be skipped.
      policy: The save policy.
      interval: ``checkpoint_interval``.
      calls: How many calls may have a mishap.
      tail: How many calls come after.
      retries: Whether the program calls again after an error.
      slow: Whether messages take time.
      deadline: Of a save, in seconds.
      numbers: What the program gives as ``checkpoint_number``: "none", the "step", or always the
        "same". Only a focus changes it, so that a seed still means the same run.
      threads: Whether a second thread calls ``save()`` at each step, too. Only a focus changes it.
    """

    workers: int
    counted: bool
    in_step: bool
    background: bool
    skip: bool
    policy: SavePolicy | None
    interval: int | None
    calls: int
    tail: int
    retries: bool
    slow: bool
    deadline: float
    numbers: str = "none"
    threads: bool = False

    @classmethod
    def choose(cls, choices: Choices) -> Settings:
        """Returns settings by chance."""
        counted = choices.of(True, True, True, False)
        slow = choices.of(False, False, True) and counted
        return cls(
            workers=choices.of(2, 2, 3),
            counted=counted,
            in_step=choices.of(True, False) or not counted,
            background=choices.of(False, True),
            skip=choices.of(False, False, True),
            policy=choices.of(None, None, *POLICIES[1:]),
            interval=choices.of(None, None, 2),
            calls=choices.of(2, 3, 4, 6),
            tail=8,
            retries=choices.of(False, False, True) and counted,
            slow=slow,
            deadline=10.0 if slow else 3.0,  # a save takes three messages, one after the other
        )


class ProgramRun:
    """A directory, a job, and its mishaps.

    Args:
      choices: All chance.
      focus: Settings that are not left to chance; "kinds", the only mishaps that there are.
      tell: Whether to keep the story.
    """

    def __init__(self, choices: Choices, focus: Mapping[str, Any], *, tell: bool = False) -> None:
        self.choices = choices
        self.world = World(choices, tell=tell)
        fixed = {k: v for k, v in focus.items() if k not in ("kinds", "program")}
        self.settings = dataclasses.replace(Settings.choose(choices), **fixed)
        self.disk = Disk()
        self.disk.has_journal = False  # nothing fails but the program
        self.oracle = Oracle(self.disk, collective=False, own=False)
        self.struck: Counter[str] = Counter()
        self.mishaps = self._plan(focus.get("kinds", MISHAPS))
        self.programs: list[Program] = []
        self._met: list[set[int]] = [set()]
        self._meetings = [0] * self.settings.workers
        self._waiting: dict[int, Task] = {}

    def play(self) -> None:
        """Plays it to the end.

        Raises:
          Violation: A promise was broken.
        """
        self.world.tell("", self.settings, self.mishaps)
        workers = self.settings.workers
        job = SimulatedJob(self.world, 1, workers, slow=self.settings.slow)
        for index in range(workers):
            storage = SimulatedStorage(
                self.world, self.disk, f"1-{index}", Faults(), lag=0.0, changed=self._changed
            )
            program = Program(self, job, index, storage)
            self.programs.append(program)
            task = self.world.start(program.name, functools.partial(_live, program.work))
            job.tasks.append(task)
            task.process = program
        self.world.run()
        self._check_ends(job)

    def committer(self, program: Program, ownership: Ownership) -> Committer:
        """Returns the chief's committer."""
        merger = state.SimulatedMerger(program.storage)
        return Committer(
            program.storage, RUN, ownership, merger, durable=True, **_refreshing(program)
        )

    def begin(self, program: Program, work: Callable[[], None]) -> Task:
        """Lets a process do something in the background."""
        task = self.world.start(f"{program.name}+", functools.partial(_live, work))
        task.process = program
        return task

    def meet(self, program: Program) -> None:
        """Waits until all workers have come to the same meeting, as a training step does."""
        number = self._meetings[program.index]
        self._meetings[program.index] += 1
        while len(self._met) <= number:
            self._met.append(set())
        here = self._met[number]
        here.add(program.index)
        if len(here) == self.settings.workers:
            for task in self._waiting.values():
                self.world.wake(task, self.world.now)
        while len(here) < self.settings.workers:
            self._waiting[program.index] = self.world.current
            self.world.wait(self.world.now + 1000.0)
        self._waiting.pop(program.index, None)

    def strike_soon(self, program: Program, mishap: str) -> None:
        """Lets something happen to whoever does an event a little later."""
        seconds = self.choices.of(*STALLS)

        def strike(task: Task) -> None:
            self.world.tell(task.name, f"  {mishap}")
            if mishap == "stalled":
                self.world.pause(task, seconds)
            elif task.name == program.name and program.is_calling:
                raise InterruptError("Ctrl-C")

        self.world.faults[self.world.count + 1 + self.choices.below(SOON)] = strike

    def _plan(self, kinds) -> dict[tuple[int, int], str]:
        found = {}
        for _ in range(self.choices.of(1, 1, 2, 3)):
            worker = (1 + self.choices.below(self.settings.workers)) % self.settings.workers
            call, kind = self.choices.below(self.settings.calls), self.choices.of(*kinds)
            if self.settings.counted or kind not in UNNOTICEABLE:
                found[(worker, call)] = kind
                self.struck[f"program: {kind}"] += 1
        return found

    # --- What is checked ------------------------------------------------------------------------

    def _changed(self, folder: str, name: str) -> None:
        self.oracle.look(folder, name, self.world.current.process.term or None)

    def _check_ends(self, job: SimulatedJob) -> None:
        self._check_all_heard_alike()
        for program in self.programs:
            self._check_tail(program)
        lists = {tuple(k.name for k in program.managed.active) for program in self.programs}
        if len(lists) > 1:
            raise Violation(f"the workers list different checkpoints: {lists}")
        keys = len(job._values)
        if keys > 12 + 10 * self.settings.workers:
            raise Violation(f"{keys} keys are left")

    def _check_all_heard_alike(self) -> None:
        """Who took part in one save heard the same of it, or that nobody knows."""
        by_entry: dict[int, list[object]] = {}
        for program in self.programs:
            for joined, result in program.ends:
                if not isinstance(result, InterruptError):
                    by_entry.setdefault(joined, []).append(result)
        for number, results in by_entry.items():
            saved = any(isinstance(result, str) for result in results)
            failed = [r for r in results if not isinstance(r, (str, CommitUnknownError))]
            if saved and failed:
                raise Violation(f"call {number}: some heard {failed[0]!r}, others that it is saved")

    def _check_tail(self, program: Program) -> None:
        """When all is well again, one call fails at the most, and none for want of time."""
        tail = [heard.result for heard in program.heard if heard.tail]
        known = self._known_errors(program)
        failed = []
        for error in tail:
            if isinstance(error, BaseException):
                if str(error) in known:
                    known.remove(str(error))
                else:
                    failed.append(error)
        if len(failed) > 1:
            raise Violation(f"{program.name}: all is well again, and still {failed[1]!r}")
        # The first may be told of what was begun before.
        new = [heard for heard in tail if heard is not None][int(self.settings.background) :]
        late = [e for e in new if isinstance(e, DeadlineExceededError)]
        if late:
            raise Violation(f"{program.name}: all is well again, and {late[0]!r}")
        due = self.settings.policy is None and self.settings.interval is None
        least = 1 if not due or self.settings.skip else self.settings.tail - 1
        saved = sum(isinstance(result, str) for result in tail)
        if saved < least:
            raise Violation(f"{program.name}: {saved} of {len(tail)} last calls saved")

    def _known_errors(self, program: Program) -> set[str]:
        """The chief's errors of saves in the background before the tail: each comes once more.

        The other workers hear of such an error late, in the next call that is due; so does the
        chief, so that this call saves nowhere. That call may be the chief's first in the tail.
        """
        if not self.settings.background:
            return set()
        heard = self.programs[0].heard
        results = [h.result for h in heard if not h.tail]
        if program.index > 0:
            results += [h.result for h in heard if h.tail and h.result is not None][:1]
        return {str(result) for result in results if isinstance(result, BaseException)}

    def limit(self) -> float:
        """Returns how long a call may take."""
        patience = Patience(self.settings.deadline)
        return 3 * (patience.seconds + patience.grace) + 2 * max(STALLS)


def _live(work: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessDied):
        work()


def _refreshing(program: Program) -> dict[str, Any]:
    return {"refresh": program.managed.refresh}
