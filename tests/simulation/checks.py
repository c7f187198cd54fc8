"""What must be true of each call of a job: its time, its result, and its error."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from distckpt.core import layout
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import CommitUnknownError, CoordinationError, DistckptError, SupersededError

from .disk import Folder
from .oracle import RUN, Order
from .world import Violation

if TYPE_CHECKING:
    from .process import Process
    from .run import Run

# An event that no run reaches.
NEVER = 10**6
# Seconds that every call may take.
LEAST_LIMIT = 20.0


class Checks:
    """Checks the calls of a run.

    Args:
      run: The run.
      is_strict: Whether a checkpoint that retention has forgotten counts as broken, too.

    Attributes:
      alone_since: The event at which a process ended last.
    """

    def __init__(self, run: Run, *, is_strict: bool) -> None:
        self._run = run
        self._is_strict = is_strict
        self.alone_since = 0
        self._last_fault = 0
        self._promised: dict[Process, Order] = {}
        self._began_at: dict[Process, int] = {}
        self._failed: Counter[Process] = Counter()

    def note_fault(self) -> None:
        """Notes that something has just gone wrong, or goes on being wrong."""
        self._last_fault = self._run.world.count

    def forget_promises(self) -> None:
        """Lets restores that have begun find nothing: the directory is another one."""
        self._promised = dict.fromkeys(self._promised, (0, 0))

    def began_before_the_copy(self) -> bool:
        """Returns whether the current call began before a newer checkpoint was copied in."""
        return self._began_at.get(self._run.current, NEVER) <= self._run.place.copied_at

    def began(self, process: Process, kind: str) -> None:
        """Notes the beginning of a call and, for a restore, the oldest allowed result."""
        self._began_at[process] = self._run.world.count
        if kind != "restore":
            return
        chief = self._run.jobs[process.job.number - 1][0]
        if process is chief or chief not in self._promised:  # the chief decides for all
            # Its listing may be as old as that.
            at = self._run.world.now - self._run.settings.lag
            promised = self._run.oracle.acknowledged_at(at)
        else:
            promised = self._promised[chief]
        self._promised[process] = promised

    def heard(self, process: Process, kind: str, result: object, seconds: float) -> None:
        """Checks how a call ended.

        Raises:
          Violation: A promise was broken.
        """
        if seconds > LEAST_LIMIT and seconds > self._limit():
            raise Violation(f"{process.name}: {kind}() took {seconds:.1f} s")
        if isinstance(result, DistckptError):
            self._check_error(process, kind, result)
            self._check_recovers(process, kind, result)
        elif kind == "save":
            is_old = self._began_at[process] <= self._run.place.replaced_at
            self._run.oracle.acknowledge(str(result), self._run.world.now, is_old=is_old)
            in_charge = process.index == 0 and process.term >= self._run.oracle.newest[0]
            in_charge &= self._run.place.replaced_at < self._began_at[process]
            if in_charge and self._began_at[process] > self._last_fault:
                self._check_list(process)
            if in_charge and (self._run.settings.hours is not None or not self._is_strict):
                self._run.oracle.pin(kept.name for kept in process.managed.active)
        elif kind == "restore":
            self._check_restored(process)
            if process.index == 0:
                order = self._run.oracle.order_of(process.restored)
                self._run.succession.restored(process.job.number, self._run.world.count, order)

    def _check_list(self, process: Process) -> None:
        """What a chief lists after a save must exist, if nobody has interfered with that save."""
        run = self._run.disk.find(RUN)
        there = run.entries if isinstance(run, Folder) else {}
        gone = [k.name for k in process.managed.active if layout.index_name(k.name) not in there]
        if gone and len(self._run.jobs) == 1:
            raise Violation(f"{process.name} lists {gone}, which is not there")

    def _limit(self) -> float:
        """Returns how long a call may take in the worst case, in seconds."""
        patience = Patience(self._run.settings.deadline, self._run.settings.slow_factor)
        slow = any(process.storage.faults.pace for process in self._run.processes)
        return 3 * ((patience.limit if slow else patience.seconds) + patience.grace) + LEAST_LIMIT

    def _check_restored(self, process: Process) -> None:
        order = self._run.oracle.order_of(process.restored)
        if order < self._promised[process]:
            raise Violation(
                f"{process.name} restored {order}, acknowledged {self._promised[process]}"
            )

    def _check_error(self, process: Process, kind: str, error: DistckptError) -> None:
        if self._run.is_final:
            raise Violation(f"{process.name}: all is well again, and {kind}() raised {error!r}")
        jobs = self._run.jobs[process.job.number - 1]
        guilty = {p.index for p in jobs if p.struck or p.failed}
        if process.struck:
            return  # any error is allowed
        if isinstance(error, SupersededError):
            if len(self._run.jobs) == 1 and not self._run.place.touched:
                raise Violation(f"{process.name} was superseded by nobody")
        elif not guilty and not self._disturbed():
            raise Violation(f"{process.name}: nothing is wrong, and {kind}() raised {error!r}")
        elif isinstance(error, (CoordinationError, CommitUnknownError)) and not self._disturbed():
            blamed = re.sub(r"[^;:]* ha(?:s|ve) done (?:its|their) part", "", str(error))
            named = {int(n) for n in re.findall(r"worker (\d+)", blamed)}
            # A chief that was stopped itself reports the other workers as late.
            if not (named | {0}) & (guilty - {process.index}):
                raise Violation(f"{process.name}: {guilty} are to blame, and it says {error!r}")

    def _check_recovers(self, process: Process, kind: str, error: DistckptError) -> None:
        """After the last fault, at most one save of a healthy job that is alone may fail."""
        job = self._run.jobs[process.job.number - 1]
        is_alone = all(p.ended for p in self._run.processes if p.job is not process.job)
        is_healthy = is_alone and not any(p.struck or p.ended for p in job)
        since = max(self._last_fault, self.alone_since)
        if kind != "save" or process.index or not is_healthy or self._began_at[process] <= since:
            return
        self._failed[process] += 1
        if isinstance(error, SupersededError) or self._run.settings.late:
            return
        if self._failed[process] > 1:
            raise Violation(f"{process.name}: all is well again, and still save() raised {error!r}")

    def _disturbed(self) -> bool:
        """Returns whether calls may fail without a fault: because of other jobs, or of delays."""
        disturbed = self._run.settings.late or self._run.settings.lag > 0 or self._run.place.touched
        return len(self._run.jobs) > 1 or disturbed
