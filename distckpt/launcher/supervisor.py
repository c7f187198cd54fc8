"""When to stop, kill, restart and finish a cluster: a state machine. Pure; callers pass the time.

              a worker fails                     grace over, or a second SIGINT
    running ──────────────────────► stopping ─────────────────────────────────► killing
       │      or a signal arrives       │                                          │
       │                                │ all gone                                 │ all gone, or
       └── all gone ────────────────────┴──────────────────────────────────────────┴ deadline over
                                        ▼
                   verdict: finished with an exit code, or start again

The exit code of a run follows from its end, by priority: a signal to the launcher (128 + its
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

# Only a process stuck inside the kernel (a dead network file system) survives SIGKILL this long.
KILL_DEADLINE = 10.0


class Phase(enum.Enum):
    """The phase of a run."""

    RUNNING = enum.auto()
    STOPPING = enum.auto()
    KILLING = enum.auto()
    OVER = enum.auto()


@dataclasses.dataclass(frozen=True)
class Policy:
    """The options of the user: see `LaunchSpec`, which has checked them."""

    max_restarts: int | None = 0  # None: an external scheduler decides
    grace: float = 30.0
    stop_grace: float = 5.0
    least: int | None = None  # fewest workers to continue with; None: as many as before


@dataclasses.dataclass(frozen=True)
class Send:
    """Action: send `signum` to every worker's process group."""

    signum: int


@dataclasses.dataclass(frozen=True)
class Kill:
    """Action: send SIGKILL to every worker and to all its descendants."""


@dataclasses.dataclass(frozen=True)
class Say:
    """Action: show a message to the user."""

    text: str


Action = Send | Kill | Say


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The end of one run of the cluster.

    Attributes:
      restart: Whether to start the cluster again.
      exit_code: The exit code without a restart.
      interrupted: Whether a signal to the launcher ended the run.
      lost: How many fewer workers the next start has.
    """

    restart: bool
    exit_code: int
    interrupted: bool = False
    lost: int = 0


class Supervisor:
    """Watches one run of the cluster; each method takes an event and returns actions.

    Attributes:
      phase: The phase of the run.
      deadline: When to call `tick`, by the clock of `now`; None if there is no need.
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
        """Event: the current state of all workers; may be repeated."""
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
            text = f"{name}: forwarded to the workers, which have {self._policy.grace:g} s to end"
            return [Say(f"{text} (Ctrl-C: kill them now)."), Send(signum)]
        if first:
            return [Say(f"{name}: the workers are already being stopped; no restart.")]
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
            text = f"only {_workers(left)} left, but {least} needed, {because}"
            return self._decide(exit_codes.PEER_LOST, Say(text))
        fewer = f" with {_workers(left)}" if gone else ""
        said = Say(f"restart {self._restart + 1} of {limit}{fewer}, {because}")
        assert failed.returncode is not None
        code = outcome.exit_code(failed.returncode)
        return self._decide(code, said, restart=True, lost=gone)

    def _after_signal(self, signum: int) -> int:
        """Returns the exit code after a signal ended all workers, or made them save and end."""
        codes = {worker.returncode for worker in self._workers}
        if codes == {exit_codes.PREEMPTED}:
            return exit_codes.PREEMPTED
        if codes <= {exit_codes.PREEMPTED, exit_codes.PREEMPTED_UNSAVED}:
            return exit_codes.PREEMPTED_UNSAVED
        return 128 + signum

    def _give_up(self) -> list[Action]:
        # No restart: a surviving process may still hold its port, its memory and its files.
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
