"""One run: jobs that restore and save, one after another or two at once, and their faults."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from distckpt.core import layout
from distckpt.core.pins_and_leases import Pin
from distckpt.directory import pinning
from distckpt.errors import DistckptError

from . import directory_faults, faults
from .checks import Checks
from .choices import Choices
from .disk import Disk, Folder
from .leftovers import leftovers
from .network import SimulatedJob
from .oracle import RUN, Oracle, Order
from .process import Process
from .program_run import ProgramRun
from .settings import Settings
from .storage import Faults, SimulatedStorage
from .succession import Succession
from .surroundings import inside
from .world import ProcessDied, Task, Violation, World

# Seconds until a job is started again.
RESTARTS = (0.0, 1.0, 20.0)
MOST_JOBS = 4
# The numbers of processes that pin begin here.
PINNERS = 90
# Faults strike at one of the first events, this many for each job: few runs have more.
SPAN = 160


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      violation: What was broken, or None.
      choices: The sequence that repeats it.
      story: Its events in words, if they were asked for.
      visited: How often each transition of the protocol was taken.
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
    kind = ProgramRun if is_program(seed, focus) else Run
    run = kind(choices, focus or {}, tell=tell)
    violation = None
    with inside(run.world):
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


def is_program(seed: int | str | None, focus: Mapping[str, object] | None) -> bool:
    """Returns whether the run is one of a program with mishaps: its seed begins with a "p"."""
    return str(seed).startswith("p") or bool((focus or {}).get("program"))


class Run:
    """A directory, the jobs that use it, and an operator that starts them again.

    Args:
      choices: All random choices.
      focus: See `play`.
      tell: Whether to keep the story.
    """

    def __init__(
        self, choices: Choices, focus: Mapping[str, object], *, tell: bool = False
    ) -> None:
        self.choices = choices
        self.world = World(choices, tell=tell)
        fixed = {k: v for k, v in focus.items() if k not in ("kinds", "strict")}
        self.settings = dataclasses.replace(Settings.choose(choices), **fixed)
        kinds = (*faults.KINDS, *directory_faults.KINDS)
        self._kinds = [k for k in kinds if k.__name__ in focus.get("kinds", [k.__name__])]
        self.disk = Disk()
        self.oracle = Oracle(self.disk, collective=self.settings.collective, own=self.settings.own)
        self.everybody = Faults()
        self.processes: list[Process] = []
        self.struck: Counter[str] = Counter()
        self.jobs: list[list[Process]] = []
        self._left = self.settings.jobs
        self.is_final = False
        self.place = directory_faults.Place(self)
        self.checks = Checks(self, is_strict=bool(focus.get("strict")))
        self.oracle.excused = self.checks.began_before_the_copy
        self.succession = Succession()
        self.oracle.on_commit = lambda order: self._tell_succession("committed", order)
        self.oracle.on_acknowledged = lambda order: self._tell_succession("acknowledged", order)
        self._plan_faults()

    @property
    def current(self) -> Process:
        """The process whose turn it is."""
        return self.world.current.process

    def play(self) -> None:
        """Plays it to the end.

        Raises:
          Violation: A promise was broken.
        """
        self.world.tell("", self.settings)
        self.start_job()
        self.world.run(between=self._operate)
        self._finish()

    def torn(self, content: bytes) -> bytes:
        """Returns what is left of content that was not flushed."""
        return self.choices.of(b"", content[: len(content) // 2], content)

    def start_job(self, *, by_mistake: bool = False) -> None:
        """Starts a job: the next one, or a second one by mistake."""
        if len(self.jobs) >= MOST_JOBS and not self.is_final:
            return
        self._left -= not by_mistake
        count = self.choices.of(1, 1, 2, 2, 2, 2, 3, 3, 4, 5) if not self.is_final else 1
        saves = self.choices.of(1, 1, 1, 2, 3) if not self.is_final else 1
        waits = self.jobs and not self.is_final and not by_mistake
        after = self.choices.of(*RESTARTS) if waits else 0.0
        job = SimulatedJob(
            self.world, len(self.jobs) + 1, count, slow=self.settings.late and not self.is_final
        )
        self.jobs.append([self._process(job, index, saves, after) for index in range(count)])
        self.world.tell("operator", f"starts job {job.number} with {count} workers")
        if self.settings.pins and not self.is_final:
            self._start_pinner(after + self.choices.below(60) * 0.005)

    def _start_pinner(self, after: float) -> None:
        """Lets somebody pin a checkpoint a little later, on a machine of its own."""
        job = SimulatedJob(self.world, PINNERS + len(self.jobs), 1, slow=False)
        pinner = self._process(job, 0, 0, after)
        pinner.work = lambda: self._pin(pinner)  # type: ignore[method-assign]

    def _pin(self, pinner: Process) -> None:
        names = sorted(self.oracle.committed())
        if not names:
            return
        name, began = names[self.choices.below(len(names))], self.world.count
        try:
            pinning.pin(pinner.storage, RUN, Pin(name, "somebody"))
        except (DistckptError, OSError) as error:
            self.world.tell(pinner.name, f"pin of {name}: {error!r}")
        else:
            self.world.tell(pinner.name, f"pin of {name}: granted")
            if max(self.place.unmarked_at, self.place.replaced_at) < began:
                self.oracle.held.add(name)

    def _process(self, job: SimulatedJob, index: int, saves: int, after: float) -> Process:
        storage = SimulatedStorage(
            self.world,
            self.disk,
            f"{job.number}-{index}",
            self.everybody,
            lag=0.0 if self.is_final else self.settings.lag,
            changed=self._changed,
            failed=self.checks.note_fault,
        )
        process = Process(
            self.world,
            job,
            index,
            storage,
            saves,
            self.settings,
            self.checks.began,
            self.checks.heard,
        )
        process.task = self.world.start(process.name, lambda: self._live(process), after)
        job.tasks.append(process.task)
        process.task.process = process
        self.processes.append(process)
        return process

    def _live(self, process: Process) -> None:
        try:
            process.work()
        except ProcessDied:
            pass
        finally:
            process.ended = True
            self.checks.alone_since = self.world.count

    def _operate(self) -> None:
        """Starts the next job when the last one has ended, or seems to have ended."""
        if self._left > 0 and all(p.ended or p.task.paused for p in self.jobs[-1]):
            self.start_job()

    def _finish(self) -> None:
        """Ends all faults; one more job restores and saves, and nothing else may be left."""
        self.world.faults.clear()
        self.everybody.broken.clear()
        self.everybody.next_one = None
        self.is_final = True
        self.start_job()
        self.world.run()
        left = leftovers(self.disk, self.oracle) if not self.place.is_untidy else []
        if left:
            raise Violation(f"left over: {', '.join(left)}")
        committed = self.oracle.committed()
        keep, kept = self.settings.max_to_keep, len(committed)
        pins = {hold[0] for hold in map(layout.parse_hold_name, self._holds()) if hold}
        copies = sum(name in committed for name in self.place.copies)
        if keep is not None and kept > keep + self.oracle.pinned + len(pins) + copies:
            raise Violation(f"{kept} checkpoints are kept instead of {keep}")
        lost = self.oracle.held - committed.keys()
        if lost and self.settings.durable:
            raise Violation(f"pinned, and deleted: {', '.join(sorted(lost))}")

    def _holds(self) -> list[str]:
        folder = self.disk.find(layout.holds_folder(RUN))
        return list(folder.entries) if isinstance(folder, Folder) else []

    # --- Faults

    def _plan_faults(self) -> None:
        self.disk.has_journal = False
        for _ in range(self.choices.of(0, 1, 1, 1, 2, 2, 3, 4)):
            at = 1 + self.choices.below(SPAN * self.settings.jobs)
            kind = self.choices.of(*self._kinds)
            self.disk.has_journal |= kind is faults.power
            self.world.faults[at] = lambda task, kind=kind: self._strike(kind, task)

    def _strike(self, kind, task: Task) -> None:
        process = task.process
        process.struck = kind not in directory_faults.KINDS or process.struck
        self.checks.note_fault()
        self.struck[kind.__name__] += 1
        self.world.tell(task.name, f"  STRUCK by {kind.__name__}")
        kind(self, process, task)

    def _tell_succession(self, what: str, order: Order) -> None:
        getattr(self.succession, what)(self.current.job.number, order)

    def _changed(self, folder: str, name: str) -> None:
        if folder in directory_faults.WATCHED:
            process = self.world.current.process
            self.place.changed(folder, name, process)
            self.oracle.look(folder, name, process.term or None)
