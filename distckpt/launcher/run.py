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
from distckpt.launcher.outcome import LaunchResult, WorkerProcess
from distckpt.launcher.output.console import Console
from distckpt.launcher.spec import LaunchSpec
from distckpt.launcher.supervisor import Action, Kill, Policy, Say, Send, Supervisor, Verdict

_FOREVER = 3600.0


_TAKEN_CARE_OF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalInbox:
    """Collects the signals that this process gets, and wakes a thread that waits for them."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        for fd in (self._reading, self._writing):
            os.set_blocking(fd, False)

    def fileno(self) -> int:
        """Returns a file descriptor that is readable after a signal."""
        return self._reading

    def take(self) -> list[int]:
        """Returns the signals since the last call, in order."""
        try:
            return [n for n in os.read(self._reading, 4096) if n in _TAKEN_CARE_OF]
        except BlockingIOError:
            return []

    def open(self) -> int:
        """Starts to collect signals; returns the previous wake-up descriptor. In the main thread.

        The interpreter writes each signal's number into the pipe at once. A Python handler could
        run minutes later: if the signal arrives just before this thread enters ``select``, the
        handler waits for ``select`` to return.
        """
        return signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)

    def close(self) -> None:
        """Closes the pipe; signals must not be written to it any more."""
        os.close(self._reading)
        os.close(self._writing)


@contextlib.contextmanager
def signals() -> Iterator[SignalInbox]:
    """Yields the inbox of SIGINT, SIGTERM and SIGHUP; outside the main thread it stays empty.

    If SIGHUP (the terminal was closed) was ignored, it stays ignored, as nohup requires.
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
    """Handles a signal: without a handler the interpreter does not write to the pipe."""


def launch(spec: LaunchSpec) -> LaunchResult:
    """Runs a cluster until all workers have finished, restarts are used up, or a signal ends it.

    The workers' output is shown on this process's standard output and error. In the main thread,
    SIGINT, SIGTERM and SIGHUP are handled. `distckpt.launcher.supervisor` decides when to stop,
    kill and restart.

    Args:
      spec: What to run.

    Returns:
      The result; ``exit_code`` is meant for ``sys.exit``.

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
            number = _signal_within(spec.elastic_wait, inbox) if verdict.lost else None
            if number is not None:
                return LaunchResult(128 + number, restart, cluster.processes)
            spec = dataclasses.replace(spec, workers=spec.workers - verdict.lost)
            restart += 1


def _signal_within(seconds: float, inbox: SignalInbox) -> int | None:
    """Waits for a signal that ends the launch; returns its number, or None after `seconds`.

    Other signals, which the program that calls `launch` may handle, end `wait_for_any`, too.
    """
    end = time.monotonic() + seconds
    while True:
        wait_for_any([inbox.fileno()], max(0.0, end - time.monotonic()))
        taken = inbox.take()
        if taken:
            return taken[0]
        if time.monotonic() >= end:
            return None


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
    """Workers that can be watched, such as those of a `LocalCluster`."""

    @property
    def processes(self) -> tuple[WorkerProcess, ...]:
        """The current state of all workers."""

    def poll(self, timeout: float, *others: Any) -> tuple[WorkerProcess, ...]:
        """Waits for a change of a worker or of one of `others`; returns the workers."""

    def signal_all(self, signum: int) -> None:
        """Sends a signal to all workers."""

    def kill_all(self) -> None:
        """Sends SIGKILL to all workers and their descendants."""

    def say(self, text: str) -> None:
        """Shows a message."""


def watch(cluster: Watched, supervisor: Supervisor, inbox: SignalInbox) -> Verdict:
    """Passes events to the supervisor and performs its actions, until it has a verdict."""
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
    """Shows the last output, as slowly as its reader (a pager?) takes it.

    This is the only wait without a deadline: nothing runs any more, and a signal ends it.
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
