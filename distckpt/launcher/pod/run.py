"""`run`: the one worker of this pod, from the first look for its peers to its exit code."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait as wait_for_any
from types import FrameType
from typing import Any

from distckpt import exit_codes
from distckpt.coordination import rendezvous, tf_config
from distckpt.coordination.rendezvous import Place
from distckpt.errors import ConfigurationError, CoordinationError
from distckpt.launcher import outcome
from distckpt.launcher.cluster import START_DEADLINE, CommandError, check_start
from distckpt.launcher.console import Console
from distckpt.launcher.guarded import GuardedProcess
from distckpt.launcher.outcome import WorkerProcess
from distckpt.launcher.pod import environment, resolve
from distckpt.launcher.pod.environment import Identity
from distckpt.launcher.pod.spec import PodSpec
from distckpt.launcher.run import signals, watch
from distckpt.launcher.supervisor import KILL_DEADLINE, Policy, Supervisor
from distckpt.launcher.tasks import worker_environment


def run(spec: PodSpec) -> int:
    """Runs the worker of this pod, when all others have come; returns the exit code.

    What the worker writes goes straight to this process's standard output and error. SIGINT,
    SIGTERM and SIGHUP are passed on to it and its children.

    Args:
      spec: What to run.

    Returns:
      The worker's exit code, see `distckpt.exit_codes`; 128 + n if signal n killed it, or ended
      this process before the worker had been started.

    Raises:
      ConfigurationError: Nothing says which worker this is, or what says it makes no sense; or the
        others' names are wrong. Starting again is useless.
      CoordinationError: The others have not come in time.
      CommandError: The command cannot be started.
    """
    console = Console.of_process()
    if shutil.which(spec.command[0]) is None and not os.path.exists(spec.command[0]):
        # It would be found after all have waited for each other.
        raise CommandError(
            f"Cannot run {spec.command[0]!r}: No such file or directory.", exit_codes.NOT_FOUND
        )
    with signals() as inbox:
        try:
            with _ended_by_signals():
                identity = environment.find(os.environ, _host(), spec)
                console.say(f"this is {identity.name}, by {identity.source}.")
                _wait_for_others(identity, spec, console)
        except _Signalled as end:
            console.say(f"{outcome.signal_name(end.number)} before the worker was started.")
            return 128 + end.number
        with _Worker(identity, spec, console) as worker:
            policy = Policy(max_restarts=None, grace=spec.grace)
            return watch(worker, Supervisor(policy), inbox).exit_code


def _wait_for_others(identity: Identity, spec: PodSpec, console: Console) -> None:
    end = time.monotonic() + spec.peer_deadline
    place = Place.of(tf_config.parse(identity.config))
    if place is None:
        return
    hosts = [rendezvous.split(address, address)[0] for address in place.addresses]
    resolve.wait_for_names(hosts, hosts[place.index], spec.peer_deadline, console.say)
    rendezvous.meet(place, max(1.0, end - time.monotonic()), console.say)
    console.say(f"all {len(place.names)} workers have come.")


class _Worker:
    """The worker's process, as `watch` wants to see a cluster.

    Args:
      identity: Who it is.
      spec: What to run.
      console: Where messages go.
    """

    def __init__(self, identity: Identity, spec: PodSpec, console: Console) -> None:
        self._identity = identity
        self._spec = spec
        self._console = console
        self._process: GuardedProcess | None = None

    @property
    def processes(self) -> tuple[WorkerProcess, ...]:
        """The worker as it is now."""
        process = self._started()
        process.receive()
        return (
            WorkerProcess(
                0,
                self._identity.name,
                process.pid,
                process.returncode,
                process.ended_at,
                process.gone,
            ),
        )

    def poll(self, timeout: float, *others: Any) -> tuple[WorkerProcess, ...]:
        """See `LocalCluster`."""
        process = self._started()
        running: Sequence[Any] = [] if process.gone else [process.fileno()]
        wait_for_any([*running, *(other.fileno() for other in others)], timeout)
        return self.processes

    def signal_all(self, signum: int) -> None:
        """See `LocalCluster`."""
        self._started().signal(signum)

    def kill_all(self) -> None:
        """See `LocalCluster`."""
        self._started().kill()

    def say(self, text: str) -> None:
        """See `LocalCluster`."""
        self._console.say(text)

    def __enter__(self) -> _Worker:
        env = worker_environment(
            os.environ,
            self._spec.env,
            tf_config=self._identity.config,
            run_id=self._identity.run_id or os.environ.get("DISTCKPT_RUN_ID"),
            restart=None,
        )
        self._process = GuardedProcess(self._spec.command, env, 1, 2)
        try:
            self._await_start(self._process)
        except BaseException:
            self._process.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = self._started()
        process.kill()
        end = time.monotonic() + KILL_DEADLINE
        while not process.gone and time.monotonic() < end:
            self.poll(end - time.monotonic())
        process.close()

    def _started(self) -> GuardedProcess:
        assert self._process is not None
        return self._process

    def _await_start(self, process: GuardedProcess) -> None:
        end = time.monotonic() + START_DEADLINE
        while process.pid is None:
            process.receive()
            check_start(process, self._spec.command)
            if time.monotonic() >= end:
                raise CoordinationError(
                    f"After {START_DEADLINE:g} s the worker has not been started."
                )
            wait_for_any([process.fileno()], 1.0)


class _Signalled(BaseException):
    """A signal has come.

    Attributes:
      number: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within it, the signals that end a process do so even in process 1 of a container.

    The kernel spares that one those that it has no handler for.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise _Signalled(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _host() -> str:
    """Returns the host's name without its domain, which `setHostnameAsFQDN` adds."""
    name = socket.gethostname().partition(".")[0]
    if not name:
        raise ConfigurationError("This host has no name.")
    return name
