"""`run`: runs the one worker of this pod, from the search for its peers to its exit code."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait as wait_for_any
from typing import Any

from distckpt import exit_codes
from distckpt.coordination import rendezvous
from distckpt.coordination.rendezvous import Place
from distckpt.core import tf_config
from distckpt.errors import ConfigurationError, DistckptError
from distckpt.launcher import outcome
from distckpt.launcher.cluster import START_DEADLINE, CommandError, check_start
from distckpt.launcher.guarded import GuardedProcess
from distckpt.launcher.outcome import WorkerProcess
from distckpt.launcher.output.console import Console
from distckpt.launcher.output.pump import Pump
from distckpt.launcher.pod import environment, host_names
from distckpt.launcher.pod.environment import Identity
from distckpt.launcher.pod.spec import PodSpec
from distckpt.launcher.run import signals, watch
from distckpt.launcher.supervisor import KILL_DEADLINE, Policy, Supervisor
from distckpt.launcher.tasks import worker_environment

_LAST_WORDS = 2.0  # seconds for the last messages, in case they are not read


def run(spec: PodSpec) -> int:
    """Runs the worker of this pod, when all other workers have come; returns the exit code.

    The worker writes directly to this process's standard output and error. SIGINT, SIGTERM and
    SIGHUP are forwarded to the worker and its children.

    Args:
      spec: What to run.

    Returns:
      The worker's exit code, see `distckpt.exit_codes`; 128 + n if signal n killed it, or ended
      this process before the worker had been started.

    Raises:
      ConfigurationError: It is unknown which worker this is, or the names of the other workers are
        wrong. Starting again is useless.
      CoordinationError: The other workers have not come in time.
      CommandError: The command cannot be started.
      DistckptError: This machine is too busy to start the worker.
    """
    console = Console.of_process()
    if shutil.which(spec.command[0]) is None and not os.path.exists(spec.command[0]):
        # Otherwise this would fail only after all workers have waited for each other.
        raise CommandError(
            f"Cannot run {spec.command[0]!r}: No such file or directory.", exit_codes.NOT_FOUND
        )
    with signals() as inbox:
        finding = _Task(lambda: _find(spec, console))
        wait_for_any([inbox.fileno(), finding.fileno()])
        for number in inbox.take():
            console.say(f"{outcome.signal_name(number)} before the worker was started.")
            return 128 + number
        identity = finding.result()
        with _Worker(identity, spec, console) as worker:
            policy = Policy(max_restarts=None, grace=spec.grace)
            return watch(worker, Supervisor(policy), inbox).exit_code


def _find(spec: PodSpec, console: Console) -> Identity:
    """Finds out which worker this is, and waits for the other workers."""
    identity = environment.find(os.environ, _host(), spec)
    console.say(f"this is {identity.name}, according to {identity.source}.")
    _wait_for_others(identity, spec, console)
    return identity


def _wait_for_others(identity: Identity, spec: PodSpec, console: Console) -> None:
    end = time.monotonic() + spec.peer_deadline
    place = Place.of(tf_config.parse(identity.config))
    if place is None:
        return
    hosts = [rendezvous.split(address, address)[0] for address in place.addresses]
    host_names.wait_for_names(hosts, hosts[place.index], spec.peer_deadline, console.say)
    rendezvous.meet(place, max(1.0, end - time.monotonic()), console.say)
    console.say(f"all {len(place.names)} workers have come.")


class _Worker:
    """The worker's process, in the form that `watch` expects of a cluster.

    A thread writes messages to the console: even if the output of the pod is not read, signals must
    be forwarded.

    Args:
      identity: Which worker it is.
      spec: What to run.
      console: Where to write messages.
    """

    def __init__(self, identity: Identity, spec: PodSpec, console: Console) -> None:
        self._identity = identity
        self._spec = spec
        self._messages = Pump(console)
        self._process: GuardedProcess | None = None

    @property
    def processes(self) -> tuple[WorkerProcess, ...]:
        """The current state of the worker."""
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
        self._messages.say(text)

    def __enter__(self) -> _Worker:
        env = worker_environment(
            os.environ,
            self._spec.env,
            tf_config=self._identity.config,
            run_id=self._identity.run_id or os.environ.get("DISTCKPT_RUN_ID"),
            restart=None,
        )
        self._messages.start()
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
        self._messages.finish(_LAST_WORDS)

    def _started(self) -> GuardedProcess:
        assert self._process is not None
        return self._process

    def _await_start(self, process: GuardedProcess) -> None:
        end = time.monotonic() + START_DEADLINE
        while True:
            process.receive()
            check_start(process, self._spec.command)
            if process.pid is not None:  # it may have ended by now, and then there is no socket
                return
            if time.monotonic() >= end:
                raise DistckptError(  # no other worker is to blame, so this failure counts
                    f"After {START_DEADLINE:g} s, the worker has not started: this machine is "
                    "too busy, or out of memory."
                )
            wait_for_any([process.fileno()], 1.0)


class _Task:
    """Calls a function on a separate thread, which does not keep the program from ending.

    In the main thread the function would delay signals: a look-up of a name may take a minute.
    """

    def __init__(self, function: Callable[[], Identity]) -> None:
        self._function = function
        self._identity: Identity | None = None
        self._error: BaseException | None = None
        self._reading, self._writing = os.pipe()
        threading.Thread(target=self._run, name="distckpt-find", daemon=True).start()

    def fileno(self) -> int:
        """Returns a file descriptor that is readable when the function has ended."""
        return self._reading

    def result(self) -> Identity:
        """Returns the function's result, or raises its exception."""
        os.close(self._reading)
        if self._error is not None:
            raise self._error
        assert self._identity is not None
        return self._identity

    def _run(self) -> None:
        try:
            self._identity = self._function()
        except BaseException as error:
            self._error = error
        finally:
            os.close(self._writing)


def _host() -> str:
    """Returns the host's name without its domain, which `setHostnameAsFQDN` adds."""
    name = socket.gethostname().partition(".")[0]
    if not name:
        raise ConfigurationError("This host has no name.")
    return name
