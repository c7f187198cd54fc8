"""`launch`: runs a cluster to its end, with signals, restarts and output on the console."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait as wait_for_any
from types import FrameType
from typing import Any, Protocol

from distckpt.launcher.cluster import LocalCluster, make_run_id
from distckpt.launcher.console import Console
from distckpt.launcher.outcome import LaunchResult, WorkerProcess
from distckpt.launcher.spec import LaunchSpec
from distckpt.launcher.supervisor import Action, Kill, Policy, Say, Send, Supervisor, Verdict

_FOREVER = 3600.0


_TAKEN_CARE_OF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalInbox:
    """Collects the signals that this process gets, and wakes the one who waits for them."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        for fd in (self._reading, self._writing):
            os.set_blocking(fd, False)

    def fileno(self) -> int:
        """Returns a file descriptor that is readable when a signal has come."""
        return self._reading

    def take(self) -> list[int]:
        """Returns the signals that came since the last call, in their order."""
        try:
            return [n for n in os.read(self._reading, 4096) if n in _TAKEN_CARE_OF]
        except BlockingIOError:
            return []

    def open(self) -> int:
        """Lets signals in; returns where they went before. In the main thread.

        The interpreter writes each signal's number into the pipe in the very moment it comes. A
        handler in Python would run later: not while this thread is in ``select``, if the signal has
        come just before, and so maybe not for minutes.
        """
        return signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)

    def close(self) -> None:
        """Closes the pipe; signals must go elsewhere again."""
        os.close(self._reading)
        os.close(self._writing)


@contextlib.contextmanager
def signals() -> Iterator[SignalInbox]:
    """Yields the inbox of SIGINT, SIGTERM and SIGHUP; outside the main thread it stays empty.

    SIGHUP (the terminal was closed) stays ignored if it was: that is what nohup asks for.
    """
    inbox = SignalInbox()
    is_main = threading.current_thread() is threading.main_thread()
    elsewhere = inbox.open() if is_main else -1
    before = {}
    try:
        for number in _TAKEN_CARE_OF if is_main else ():
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, _nothing)
        yield inbox
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if is_main:
            signal.set_wakeup_fd(elsewhere)
        inbox.close()


def _nothing(number: int, frame: FrameType | None) -> None:
    """Takes a signal: without a handler the interpreter would not be told of it."""


def launch(spec: LaunchSpec) -> LaunchResult:
    """Runs a cluster until all workers have finished, restarts are used up, or a signal ends it.

    What the workers write is shown on this process's standard output and error. While it runs,
    SIGINT, SIGTERM and SIGHUP are taken care of, if this is the main thread. What happens when is
    decided by `distckpt.launcher.supervisor`.

    Args:
      spec: What to run.

    Returns:
      How it went; ``exit_code`` is meant for ``sys.exit``.

    Raises:
      CommandError: The command cannot be started.
      ConfigurationError: There is no free port, or the log directory cannot be written.
    """
    policy = Policy(spec.max_restarts, spec.grace, spec.stop_grace, spec.least)
    console, run_id, restart = Console.of_process(), make_run_id(), 0
    with signals() as inbox:
        while True:
            cluster = _make_cluster(spec, run_id, restart, console)
            with cluster:
                verdict = watch(cluster, Supervisor(policy, restart), inbox)
                if not verdict.restart and not verdict.interrupted:
                    _flush(cluster, inbox)
            if not verdict.restart:
                return LaunchResult(verdict.exit_code, restart, cluster.processes)
            if verdict.lost and wait_for_any([inbox.fileno()], spec.elastic_wait):
                code = 128 + inbox.take()[0]
                return LaunchResult(code, restart, cluster.processes)
            spec = dataclasses.replace(spec, workers=spec.workers - verdict.lost)
            restart += 1


def _make_cluster(spec: LaunchSpec, run_id: str, restart: int, console: Console) -> LocalCluster:
    return LocalCluster(
        spec.command,
        workers=spec.workers,
        chief=spec.chief,
        env=spec.env,
        log_dir=spec.log_dir,
        run_id=run_id,
        restart=restart,
        console=console,
    )


class Watched(Protocol):
    """Workers that can be watched, as those of a `LocalCluster`."""

    @property
    def processes(self) -> tuple[WorkerProcess, ...]:
        """All workers as they are now."""

    def poll(self, timeout: float, *others: Any) -> tuple[WorkerProcess, ...]:
        """Waits until something happens to a worker or one of `others`, and returns them."""

    def signal_all(self, signum: int) -> None:
        """Sends a signal to all."""

    def kill_all(self) -> None:
        """Sends SIGKILL to all and everything they started."""

    def say(self, text: str) -> None:
        """Shows a message."""


def watch(cluster: Watched, supervisor: Supervisor, inbox: SignalInbox) -> Verdict:
    """Feeds what happens to the supervisor and does what it says, until it has a verdict."""
    workers = cluster.processes
    while True:
        _perform(cluster, supervisor.observe(workers, time.monotonic()))
        for number in inbox.take():
            _perform(cluster, supervisor.signalled(number, time.monotonic()))
        _perform(cluster, supervisor.tick(time.monotonic()))
        if supervisor.verdict is not None:
            return supervisor.verdict
        deadline = supervisor.deadline
        pause = _FOREVER if deadline is None else max(0.0, deadline - time.monotonic())
        workers = cluster.poll(pause, inbox)


def _flush(cluster: LocalCluster, inbox: SignalInbox) -> None:
    """Shows the last output, at the pace of its reader (a pager?), as any program does.

    The only wait without a deadline: nothing runs any more, and a signal ends it.
    """
    while not cluster.flush(timeout=0.5) and not inbox.take():
        pass


def _perform(cluster: Watched, actions: Iterable[Action]) -> None:
    for action in actions:
        match action:
            case Send(signum):
                cluster.signal_all(signum)
            case Kill():
                cluster.kill_all()
            case Say(text):
                cluster.say(text)
