"""When to stop, kill, restart and finish a cluster: a state machine. Pure; time comes from outside.

              a worker fails                     grace over, or a second SIGINT
    running ──────────────────────► stopping ─────────────────────────────────► killing
       │      or a signal arrives       │                                          │
       │                                │ all gone                                 │ all gone, or
       └── all gone ────────────────────┴──────────────────────────────────────────┴ deadline over
                                        ▼
                   verdict: finished with an exit code, or start again

What ends a run decides its exit code, the strongest first: a signal to the launcher (128 + its
number; never a restart), the first worker that failed (its exit code, once restarts are used up),
and otherwise 0. One `Supervisor` watches one start of the cluster.
"""

from __future__ import annotations

import dataclasses
import enum
import signal
from collections.abc import Sequence

from distckpt import exit_codes
from distckpt.launcher import elastic, outcome
from distckpt.launcher.outcome import WorkerProcess

# After SIGKILL only a process stuck inside the kernel (a dead network file system) stays.
KILL_DEADLINE = 10.0


class Phase(enum.Enum):
    """How far a run has come."""

    RUNNING = enum.auto()
    STOPPING = enum.auto()
    KILLING = enum.auto()
    OVER = enum.auto()


@dataclasses.dataclass(frozen=True)
class Policy:
    """What the user asked for: see `LaunchSpec`, which has checked it."""

    max_restarts: int | None = 0  # None: a scheduler outside decides about that
    grace: float = 30.0
    stop_grace: float = 5.0
    least: int | None = None  # workers to go on with; None: as many as before


@dataclasses.dataclass(frozen=True)
class Send:
    """Action: send `signum` to every worker's process group."""

    signum: int


@dataclasses.dataclass(frozen=True)
class Kill:
    """Action: send SIGKILL to every worker and to everything it started."""


@dataclasses.dataclass(frozen=True)
class Say:
    """Action: tell the user."""

    text: str


Action = Send | Kill | Say


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The end of one run of the cluster.

    Attributes:
      restart: Whether to start it again.
      exit_code: What to finish with otherwise.
      interrupted: Whether a signal to the launcher ended it.
      lost: With how many workers fewer to start it again.
    """

    restart: bool
    exit_code: int
    interrupted: bool = False
    lost: int = 0


class Supervisor:
    """Watches one run of the cluster; each method takes an event and returns what to do.

    Attributes:
      phase: How far the run has come.
      deadline: When `tick` wants to be called, in the clock of `now`; None for "no need".
      verdict: Set once the phase is `Phase.OVER`.
    """

    def __init__(self, policy: Policy, restart: int = 0) -> None:
        """Starts in phase RUNNING.

        Args:
          policy: How long to wait and how often to restart.
          restart: How many restarts were used up before this run.
        """
        self.phase = Phase.RUNNING
        self.deadline: float | None = None
        self.verdict: Verdict | None = None
        self._policy = policy
        self._restart = restart
        self._signum: int | None = None
        self._stopped_at: float | None = None
        self._workers: tuple[WorkerProcess, ...] = ()

    def observe(self, workers: Sequence[WorkerProcess], now: float) -> list[Action]:
        """Event: the workers look like this (all of them, any number of times)."""
        self._workers = tuple(workers)
        if self.phase is Phase.OVER:
            return []
        if all(worker.gone for worker in workers):
            return self._finish()
        failed = outcome.first_failed(workers)
        if self.phase is not Phase.RUNNING or failed is None:
            return []
        self._stopped_at = now
        self._enter(Phase.STOPPING, now + self._policy.stop_grace)
        return [Say(f"{_obituary(failed)}; stopping the others."), Send(signal.SIGTERM)]

    def signalled(self, signum: int, now: float) -> list[Action]:
        """Event: the launcher itself got `signum`."""
        if self.phase is Phase.OVER:
            return []
        first, self._signum = self._signum is None, self._signum or signum
        name = outcome.signal_name(signum)
        if first and self.phase is Phase.RUNNING:
            self._enter(Phase.STOPPING, now + self._policy.grace)
            text = f"{name}: passed on to the workers, which have {self._policy.grace:g} s to end"
            return [Say(f"{text} (Ctrl-C: kill them now)."), Send(signum)]
        if first:
            return [Say(f"{name}: the workers are being stopped already; no restart.")]
        if signum == signal.SIGINT and self.phase is Phase.STOPPING:
            return [Say(f"{name} again: killing the workers."), *self._kill(now)]
        return []

    def tick(self, now: float) -> list[Action]:
        """Event: time has passed."""
        if self.phase is Phase.OVER or self.deadline is None or now < self.deadline:
            return []
        names = ", ".join(worker.name for worker in self._workers if not worker.gone)
        if self.phase is Phase.STOPPING:
            return [Say(f"not ended in time: {names}; killing."), *self._kill(now)]
        pids = ", ".join(str(worker.pid) for worker in self._workers if not worker.gone)
        return [Say(f"cannot be killed: {names} (pid {pids}); giving up."), *self._give_up()]

    def _kill(self, now: float) -> list[Action]:
        self._enter(Phase.KILLING, now + KILL_DEADLINE)
        return [Kill()]

    def _enter(self, phase: Phase, deadline: float | None) -> None:
        self.phase, self.deadline = phase, deadline

    def _finish(self) -> list[Action]:
        failed = outcome.first_failed(self._workers)
        limit = self._policy.max_restarts
        if self._signum is not None and limit is not None:
            return self._decide(self._after_signal(self._signum))
        if failed is None or failed.returncode is None:
            return self._decide(0)
        code = outcome.exit_code(failed.returncode)
        if limit is None:
            return self._decide(code, Say(f"{_obituary(failed)}.{_where(failed)}"))
        if self._restart < limit:
            return self._start_again(failed, limit)
        used = f"all {limit} restarts are used up" if limit else "no restarts were asked for"
        return self._decide(code, Say(f"{_obituary(failed)}; {used}.{_where(failed)}"))

    def _start_again(self, failed: WorkerProcess, limit: int) -> list[Action]:
        least, left, gone = self._policy.least, len(self._workers), 0
        if least is not None:
            gone = len(elastic.lost(self._workers, self._stopped_at))
            left -= gone
        because = f"because {_obituary(failed)}.{_where(failed)}"
        if least is not None and left < least:
            text = f"left: {_workers(left)}, and it takes {least}; {because}"
            return self._decide(exit_codes.PEER_LOST, Say(text))
        fewer = f" with {_workers(left)}" if gone else ""
        said = Say(f"restart {self._restart + 1} of {limit}{fewer}, {because}")
        assert failed.returncode is not None
        code = outcome.exit_code(failed.returncode)
        return self._decide(code, said, restart=True, lost=gone)

    def _after_signal(self, signum: int) -> int:
        """Returns the exit code when a signal has ended all, or made all save and end."""
        codes = {worker.returncode for worker in self._workers}
        if codes == {exit_codes.PREEMPTED}:
            return exit_codes.PREEMPTED
        if codes <= {exit_codes.PREEMPTED, exit_codes.PREEMPTED_UNSAVED}:
            return exit_codes.PREEMPTED_UNSAVED
        return 128 + signum

    def _give_up(self) -> list[Action]:
        # No restart: what will not die may still hold its port, its memory and its files.
        failed = outcome.first_failed(self._workers)
        if self._signum is not None:
            return self._decide(128 + self._signum)
        code = failed.returncode if failed and failed.returncode else 1
        return self._decide(outcome.exit_code(code))

    def _decide(
        self, code: int, *actions: Action, restart: bool = False, lost: int = 0
    ) -> list[Action]:
        self.verdict = Verdict(restart, code, self._signum is not None, lost)
        self._enter(Phase.OVER, None)
        return list(actions)


def _obituary(worker: WorkerProcess) -> str:
    assert worker.returncode is not None
    meaning = exit_codes.MEANINGS.get(worker.returncode)
    means = f" ({meaning})" if meaning else ""
    return f"{worker.name} (pid {worker.pid}) {outcome.describe(worker.returncode)}{means}"


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count != 1 else ''}"


def _where(worker: WorkerProcess) -> str:
    return f" Its output: {worker.log}" if worker.log else ""
