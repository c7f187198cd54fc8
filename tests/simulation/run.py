"""One run: jobs that restore and save, one after another or two at once, and what befalls them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from distckpt.core import layout
from distckpt.core.delays import Patience
from distckpt.core.holds import Pin
from distckpt.errors import (
    CommitUnknownError,
    CoordinationError,
    DistckptError,
    SupersededError,
)
from distckpt.roles import holding
from distckpt.storage.temporary import is_temporary

from . import faults
from .choices import Choices
from .disk import Disk, Folder
from .network import SimulatedJob
from .oracle import RUN, Oracle, Order
from .process import Process
from .storage import Faults, SimulatedStorage
from .surroundings import inside
from .world import ProcessDied, Task, Violation, World

# Seconds until a job is started again.
RESTARTS = (0.0, 1.0, 20.0)
MOST_JOBS = 4
# Where the numbers begin of those who pin.
PINNERS = 90
# Faults strike at the first so many events: few runs have more.
SPAN = 160


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is set up; see `Run`."""

    jobs: int
    durable: bool
    names: int
    max_to_keep: int | None
    hours: float | None
    collective: bool
    late: bool
    lag: float
    deadline: float
    slow_factor: float
    own: bool
    pins: bool

    @classmethod
    def choose(cls, choices: Choices) -> Settings:
        """Returns settings by chance."""
        return cls(
            jobs=choices.of(1, 1, 1, 2, 2, 3),
            durable=choices.of(True, True, True, False),
            names=choices.of(0, 2, 3),
            max_to_keep=choices.of(2, 1, 1, None),
            hours=choices.of(None, None, None, None, 0.001),
            collective=choices.of(False, False, False, True),
            late=choices.of(False, False, True),
            lag=choices.of(0.0, 0.0, 0.05, 3.0),
            deadline=choices.of(3.0, 10.0),
            slow_factor=choices.of(1.0, 3.0),
            own=choices.of(False, False, True),
            pins=choices.of(False, False, True),
        )


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      violation: What was broken, or None.
      choices: The sequence that repeats it.
      story: Its events in words, if they were asked for.
      visited: How often which transition of the protocol was taken.
      commits: Checkpoints committed.
      struck: How many faults of which kind.
    """

    violation: str | None
    choices: Sequence[int]
    story: Sequence[str]
    visited: Counter[tuple[str, str, str]]
    commits: int
    struck: Counter[str]


def play(
    seed: int | str | None = None,
    given: Sequence[int] | None = None,
    *,
    focus: Mapping[str, object] | None = None,
    tell: bool = False,
) -> Result:
    """Plays the run of a seed, or of a given sequence of choices.

    Args:
      seed: The seed,
      given: or the choices.
      focus: Settings that are not left to chance; "kinds", the only faults that strike; "strict",
        whether a checkpoint that retention has forgotten counts as broken, too.
      tell: Whether to keep the story.
    """
    choices = Choices(seed, given)
    run = Run(choices, focus or {}, tell=tell)
    violation = None
    with inside(run.world, lambda: run.current):
        try:
            run.play()
        except Violation as error:
            violation = str(error)
            run.world.tell("", f"BROKEN: {violation}")
        except Exception as error:
            violation = f"{type(error).__name__}: {error}"
            run.world.tell("", f"BROKEN: {violation}")
            if tell:
                raise
        finally:
            run.world.close()
    return Result(
        violation,
        choices.made,
        run.world.told or (),
        run.world.visited,
        run.oracle.commits,
        run.struck,
    )


class Run:
    """A directory, the jobs that use it, and an operator who starts them again.

    Args:
      choices: All chance.
      focus: See `play`.
      tell: Whether to keep the story.
    """

    def __init__(
        self, choices: Choices, focus: Mapping[str, object], *, tell: bool = False
    ) -> None:
        self.choices = choices
        self.world = World(choices, tell=tell)
        fixed = {k: v for k, v in focus.items() if k not in ("kinds", "strict")}
        self._strict = bool(focus.get("strict"))
        self.settings = dataclasses.replace(Settings.choose(choices), **fixed)
        self._kinds = [k for k in faults.KINDS if k.__name__ in focus.get("kinds", [k.__name__])]
        self.disk = Disk()
        self.oracle = Oracle(self.disk, collective=self.settings.collective, own=self.settings.own)
        self.everybody = Faults()
        self.processes: list[Process] = []
        self.struck: Counter[str] = Counter()
        self._by_task: dict[Task, Process] = {}
        self._jobs: list[list[Process]] = []
        self._left = self.settings.jobs
        self._final = False
        self._promised: dict[Process, Order] = {}
        self._plan_faults()

    @property
    def current(self) -> Process:
        """The process whose turn it is."""
        return self._by_task[self.world.current]

    def play(self) -> None:
        """Plays it to the end.

        Raises:
          Violation: A promise was broken.
        """
        self.world.tell("", str(self.settings))
        self.start_job()
        self.world.run(between=self._operate)
        self._finish()

    def torn(self, content: bytes) -> bytes:
        """Returns what is left of a content that was not flushed."""
        return self.choices.of(b"", content[: len(content) // 2], content)

    def start_job(self, *, by_mistake: bool = False) -> None:
        """Starts a job; the operator does it, or a second one by mistake."""
        if len(self._jobs) >= MOST_JOBS and not self._final:
            return
        self._left -= not by_mistake
        count = self.choices.of(1, 1, 2, 2, 2, 2, 3, 3, 4, 5) if not self._final else 1
        saves = self.choices.of(1, 1, 1, 2, 3) if not self._final else 1
        waits = self._jobs and not self._final and not by_mistake
        after = self.choices.of(*RESTARTS) if waits else 0.0
        job = SimulatedJob(
            self.world, len(self._jobs) + 1, count, slow=self.settings.late and not self._final
        )
        self._jobs.append([self._process(job, index, saves, after) for index in range(count)])
        self.world.tell("operator", f"starts job {job.number} with {count} workers")
        if self.settings.pins and not self._final:
            self._start_pinner(after + self.choices.below(60) * 0.005)

    def _start_pinner(self, after: float) -> None:
        """Lets somebody pin a checkpoint, on a machine of his own, a little later."""
        job = SimulatedJob(self.world, PINNERS + len(self._jobs), 1, slow=False)
        pinner = self._process(job, 0, 0, after)
        pinner.work = lambda: self._pin(pinner)  # type: ignore[method-assign]

    def _pin(self, pinner: Process) -> None:
        names = sorted(self.oracle.committed())
        if not names:
            return
        name = names[self.choices.below(len(names))]
        try:
            holding.pin(pinner.storage, RUN, Pin(name, "somebody"))
        except (DistckptError, OSError) as error:
            self.world.tell(pinner.name, f"pin of {name}: {error!r}")
        else:
            self.world.tell(pinner.name, f"pin of {name}: granted")
            self.oracle.held.add(name)

    def _process(self, job: SimulatedJob, index: int, saves: int, after: float) -> Process:
        storage = SimulatedStorage(
            self.world,
            self.disk,
            f"{job.number}-{index}",
            self.everybody,
            lag=0.0 if self._final else self.settings.lag,
            changed=self._changed,
        )
        process = Process(
            self.world, job, index, storage, saves, self.settings, self._began, self._heard
        )
        process.task = self.world.start(process.name, lambda: self._live(process), after)
        job.tasks.append(process.task)
        self._by_task[process.task] = process
        self.processes.append(process)
        return process

    def _live(self, process: Process) -> None:
        try:
            process.work()
        except ProcessDied:
            pass
        finally:
            process.ended = True

    def _operate(self) -> None:
        """Starts the next job when the last one has ended, or seems to have."""
        if self._left > 0 and all(p.ended or p.task.paused for p in self._jobs[-1]):
            self.start_job()

    def _finish(self) -> None:
        """All is well again: one job restores and saves, and nothing else is left."""
        self.world.faults.clear()
        self.everybody.broken.clear()
        self.everybody.next_one = None
        self._final = True
        self.start_job()
        self.world.run()
        left = leftovers(self.disk, self.oracle)
        if left:
            raise Violation(f"left over: {', '.join(left)}")
        committed = self.oracle.committed()
        keep, kept = self.settings.max_to_keep, len(committed)
        pins = {hold[0] for hold in map(layout.parse_hold_name, self._holds()) if hold}
        if keep is not None and kept > keep + self.oracle.pinned + len(pins):
            raise Violation(f"{kept} checkpoints are kept instead of {keep}")
        lost = self.oracle.held - committed.keys()
        if lost and self.settings.durable:
            raise Violation(f"pinned, and deleted: {', '.join(sorted(lost))}")

    def _holds(self) -> list[str]:
        folder = self.disk.find(layout.holds_folder(RUN))
        return list(folder.entries) if isinstance(folder, Folder) else []

    # --- Faults

    def _plan_faults(self) -> None:
        for _ in range(self.choices.of(0, 1, 1, 1, 2, 2, 3, 4)):
            at = 1 + self.choices.below(SPAN * self.settings.jobs)
            kind = self.choices.of(*self._kinds)
            self.world.faults[at] = lambda task, kind=kind: self._strike(kind, task)

    def _strike(self, kind, task: Task) -> None:
        process = self._by_task[task]
        process.struck = True
        self.struck[kind.__name__] += 1
        self.world.tell(task.name, f"  STRUCK by {kind.__name__}")
        kind(self, process, task)

    # --- What is checked

    def _changed(self, path: str) -> None:
        self.oracle.look(path, self.current.epoch or None)

    def _began(self, process: Process, kind: str) -> None:
        if kind != "restore":
            return
        chief = self._jobs[process.job.number - 1][0]
        if process is chief or chief not in self._promised:  # the chief decides for all
            # What it has listed before may be as old as that.
            promised = self.oracle.acknowledged_at(self.world.now - self.settings.lag)
        else:
            promised = self._promised[chief]
        self._promised[process] = promised

    def _heard(self, process: Process, kind: str, result: object, seconds: float) -> None:
        if seconds > self._limit():
            raise Violation(f"{process.name}: {kind}() took {seconds:.1f} s")
        if isinstance(result, DistckptError):
            self._check_error(process, kind, result)
        elif kind == "save":
            self.oracle.acknowledge(str(result), self.world.now)
            in_charge = process.index == 0 and process.epoch >= self.oracle.newest[0]
            if in_charge and (self.settings.hours is not None or not self._strict):
                self.oracle.pin(kept.name for kept in process.books.active)
        elif kind == "restore":
            self._check_restored(process)

    def _limit(self) -> float:
        """Returns how long a call may take in the worst case, in seconds."""
        patience = Patience(self.settings.deadline, self.settings.slow_factor)
        slow = any(process.storage.faults.pace for process in self.processes)
        return 3 * ((patience.limit if slow else patience.seconds) + patience.grace) + 20.0

    def _check_restored(self, process: Process) -> None:
        order = self.oracle.order_of(process.restored)
        if order < self._promised[process]:
            raise Violation(
                f"{process.name} restored {order}, acknowledged {self._promised[process]}"
            )

    def _check_error(self, process: Process, kind: str, error: DistckptError) -> None:
        if self._final:
            raise Violation(f"{process.name}: all is well again, and {kind}() raised {error!r}")
        jobs = self._jobs[process.job.number - 1]
        guilty = {p.index for p in jobs if p.struck or p.failed}
        if process.struck:
            return  # it may think what it likes
        if isinstance(error, SupersededError):
            if len(self._jobs) == 1:
                raise Violation(f"{process.name} was superseded by nobody")
        elif not guilty and not self._disturbed():
            raise Violation(f"{process.name}: nothing is wrong, and {kind}() raised {error!r}")
        elif isinstance(error, (CoordinationError, CommitUnknownError)) and not self._disturbed():
            blamed = re.sub(r"[^;:]* did their part", "", str(error))
            named = {int(n) for n in re.findall(r"worker (\d+)", blamed)}
            # A chief that was stopped itself takes the others for late.
            if not (named | {0}) & (guilty - {process.index}):
                raise Violation(f"{process.name}: {guilty} are to blame, and it says {error!r}")

    def _disturbed(self) -> bool:
        """Returns whether things go wrong without a fault: by other jobs, or by what comes late."""
        return len(self._jobs) > 1 or self.settings.late or self.settings.lag > 0


def leftovers(disk: Disk, oracle: Oracle) -> list[str]:
    """Returns what is in the directory and belongs to no checkpoint, or is missing."""
    expected = {f"{RUN}/{layout.POINTER_FILE}"}
    for name, manifest in oracle.committed().items():
        if manifest.replaces is not None:
            return [f"{name} with two versions"]
        files = [layout.manifest_name(name), layout.index_name(name)]
        expected |= {f"{RUN}/{file}" for file in [*files, *(f.name for f in manifest.files)]}
    found = set(_paths(disk.root, ""))
    epochs = {path for path in found if path.startswith(layout.epochs_folder(RUN))}
    for folder in (layout.quarantine_folder, layout.holds_folder):
        found -= {p for p in found if p.startswith(folder(RUN)) and not is_temporary(p)}
    if len(epochs) != 1:
        return sorted(epochs)
    return sorted((found - epochs) ^ expected)


_STAY = (layout.PRIVATE_FOLDER, "quarantine", "abandoned", "holds")


def _paths(folder: Folder, path: str) -> list[str]:
    """Returns the paths of all files, and of empty folders."""
    if path and not folder.entries and not path.endswith(_STAY):
        return [path + "/"]
    found: list[str] = []
    for name, node in folder.entries.items():
        inner = f"{path}/{name}"
        found += _paths(node, inner) if isinstance(node, Folder) else [inner]
    return found
