"""`LocalCluster`: one start of N workers on this machine, under the caller's control."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from typing import Any

from distckpt.errors import ConfigurationError, DeadlineExceededError, explain
from distckpt.launcher import outcome
from distckpt.launcher.guarded import GuardedProcess
from distckpt.launcher.outcome import WorkerProcess
from distckpt.launcher.output.console import Console
from distckpt.launcher.output.pump import Pump
from distckpt.launcher.output.worker_output import WorkerOutput
from distckpt.launcher.ports import pick_ports
from distckpt.launcher.spec import LaunchSpec, check_seconds
from distckpt.launcher.tasks import make_tasks, tf_config, worker_environment

# A guard needs a few hundredths of a second; a machine that is out of memory needs longer.
START_DEADLINE = 60.0
_KILL_DEADLINE = 10.0
_OUTPUT_DEADLINE = 2.0


class CommandError(ConfigurationError):
    """The command could not be started: not found, or not executable.

    Attributes:
      exit_code: What a shell would return: 127 when it was not found, else 126.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_start(process: GuardedProcess, command: Sequence[str]) -> None:
    """Raises CommandError if the guard of `process` could not start `command`."""
    if process.error is not None:
        text, number = process.error
        code = outcome.exit_code_of_error(number)
        raise CommandError(f"Cannot run {command[0]!r}: {text}.", code)


def make_run_id() -> str:
    """Returns a new ``DISTCKPT_RUN_ID``: the time, for readers, and a random, unique part."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


class LocalCluster:
    """Workers on this machine, each with its ``TF_CONFIG``, that never outlive this process.

        with LocalCluster([sys.executable, "train.py"], workers=3) as cluster:
            cluster.kill(1)
            workers = cluster.wait(timeout=60)
            assert "lost worker 1" in cluster.output(0)

    A cluster neither restarts workers nor shows their output; `distckpt.launcher.launch` does.
    Leaving the ``with`` block kills processes that still run. Use a cluster from one thread at a
    time. It can be started once.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        workers: int,
        chief: bool = False,
        env: Mapping[str, str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        run_id: str | None = None,
        restart: int = 0,
        console: Console | None = None,
    ) -> None:
        """Describes a cluster; starts nothing.

        Args:
          command: As in `LaunchSpec`; so are the next four.
          workers: Number of processes.
          chief: Whether the first process is the task "chief".
          env: Variables for every worker, in addition to those of this process.
          log_dir: Directory for the files ``<worker>.restart-<restart>.log``, or None.
          run_id: ``DISTCKPT_RUN_ID`` of the workers; default: a new one.
          restart: ``DISTCKPT_RESTART`` of the workers.
          console: Where to show the output of the workers; default: nowhere.

        Raises:
          ConfigurationError: A value makes no sense.
        """
        self._spec = LaunchSpec(
            command=command, workers=workers, chief=chief, env=env or {}, log_dir=log_dir
        )
        self._tasks = make_tasks(workers, chief)
        self._run_id = run_id or make_run_id()
        self._restart = restart
        self._console = console
        self._pump: Pump | None = None
        self._outputs: list[WorkerOutput] = []
        self._processes: list[GuardedProcess] = []
        self._state = "new"

    @property
    def processes(self) -> tuple[WorkerProcess, ...]:
        """The current state of all workers, by index; () before `start`."""
        for process in self._processes:
            process.receive()
        return tuple(self._describe(index) for index in range(len(self._processes)))

    def start(self) -> LocalCluster:
        """Starts all workers; returns when the command runs in each.

        Raises:
          CommandError: The command cannot be started; no process of the cluster is left.
          ConfigurationError: There is no free port, or `log_dir` cannot be written.
          DeadlineExceededError: The machine is too busy to start the workers.
        """
        if self._state != "new":
            raise RuntimeError("A LocalCluster can be started only once; make another one.")
        self._state = "started"
        try:
            self._pump = Pump(self._console)
            self._outputs.extend(self._open_outputs(self._pump))
            self._start_all(self._pump)
            self._pump.start()
            self._await_start()
        except BaseException:
            self.close()
            raise
        return self

    def poll(self, timeout: float, *others: Any) -> tuple[WorkerProcess, ...]:
        """Waits until something happens to a worker, and returns `processes`.

        Args:
          timeout: The longest wait, in seconds.
          *others: Further objects with a ``fileno()`` that end the wait when they are readable.
        """
        running = [process.fileno() for process in self._processes if not process.gone]
        wait_for_any([*running, *(other.fileno() for other in others)], timeout)
        return self.processes

    def wait(self, timeout: float) -> tuple[WorkerProcess, ...]:
        """Waits until all workers, and all their descendants, have ended; returns how they ended.

        Args:
          timeout: The longest wait, in seconds.

        Raises:
          DeadlineExceededError: Some workers still run; the text names them.
        """
        check_seconds("timeout", timeout)
        if not self._wait_until_gone(timeout):
            running = ", ".join(f"{p.name} (pid {p.pid})" for p in self.processes if not p.gone)
            raise DeadlineExceededError(f"After {timeout:g} s these still run: {running}.")
        self.close()  # nothing runs any more: forwards the rest of the output
        return self.processes

    def kill(self, index: int, signum: int = signal.SIGKILL) -> None:
        """Sends a signal to the process group of worker `index`, including its children.

        Nothing happens if the worker has ended.
        """
        if not 0 <= index < len(self._processes):
            raise IndexError(f"There is no process {index}; there are {len(self._processes)}.")
        self._processes[index].signal(signum)

    def signal_all(self, signum: int) -> None:
        """Sends a signal to the process groups of all workers."""
        for process in self._processes:
            process.signal(signum)

    def kill_all(self) -> None:
        """Sends SIGKILL to all workers and their descendants; does not wait."""
        for process in self._processes:
            process.kill()

    def stop(self, grace: float = 5.0) -> tuple[WorkerProcess, ...]:
        """Ends all workers: SIGTERM, then SIGKILL after `grace` seconds; returns how they ended."""
        check_seconds("grace", grace)
        try:
            self.signal_all(signal.SIGTERM)
            self._wait_until_gone(grace)
        finally:
            self.close()
        return self.processes

    def close(self) -> None:
        """Kills what still runs and forwards the rest of the output. May be called repeatedly."""
        if self._state == "closed":
            return
        self._state = "closed"
        try:
            self.kill_all()
            self._wait_until_gone(_KILL_DEADLINE)
        finally:
            for process in self._processes:
                process.close()
            if self._pump is not None:
                self._pump.finish(_OUTPUT_DEADLINE)

    def flush(self, timeout: float) -> bool:
        """Forwards the rest of the output after all workers have ended.

        Args:
          timeout: The longest wait in seconds, because the console may be blocked.

        Returns:
          Whether all output is forwarded. If not, call again.
        """
        return self._pump is None or self._pump.finish(timeout)

    def output(self, index: int) -> str:
        """Returns the output of worker `index` so far, stdout and stderr in order of arrival.

        Only the last MiB; `log_dir` has all of it. Bytes that are not UTF-8 become U+FFFD.
        """
        return self._outputs[index].text()

    def say(self, text: str) -> None:
        """Shows a message among the output of the workers. Never blocks; call it after `start`."""
        if self._pump is not None:
            self._pump.say(text)

    def __enter__(self) -> LocalCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _describe(self, index: int) -> WorkerProcess:
        process = self._processes[index]
        return WorkerProcess(
            index,
            self._tasks[index].name,
            process.pid,
            process.returncode,
            process.ended_at,
            process.gone,
            self._outputs[index].log,
        )

    def _open_outputs(self, pump: Pump) -> list[WorkerOutput]:
        directory = self._spec.log_dir
        if directory is not None:
            try:
                Path(directory).mkdir(parents=True, exist_ok=True)
                return [self._open_output(index, directory) for index in range(len(self._tasks))]
            except OSError as error:
                complaint = f"The log directory cannot be written: {explain(error)}."
                if self._restart == 0:
                    raise ConfigurationError(complaint) from error
                pump.say(complaint)  # no reason to end a job that has already run
        return [WorkerOutput(index, task.name) for index, task in enumerate(self._tasks)]

    def _open_output(self, index: int, directory: str | os.PathLike[str]) -> WorkerOutput:
        task = self._tasks[index]
        name = f"{task.slug}.restart-{self._restart}.log"
        return WorkerOutput(index, task.name, str(Path(directory, name)))

    def _start_all(self, pump: Pump) -> None:
        addresses = [f"127.0.0.1:{port}" for port in pick_ports(len(self._tasks))]
        for task, output in zip(self._tasks, self._outputs, strict=True):
            env = worker_environment(
                os.environ,
                self._spec.env,
                tf_config=tf_config(self._tasks, addresses, task),
                run_id=self._run_id,
                restart=self._restart,
            )
            with contextlib.ExitStack() as ends:
                pipes = [_pipe(pump, output, stream, ends) for stream in ("stdout", "stderr")]
                self._processes.append(GuardedProcess(self._spec.command, env, *pipes))

    def _await_start(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while True:
            for process in self._processes:
                process.receive()
                check_start(process, self._spec.command)
            waiting = [process for process in self._processes if process.pid is None]
            if not waiting:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceededError(
                    f"After {START_DEADLINE:g} s, {len(waiting)} workers have not started."
                )
            wait_for_any([process.fileno() for process in waiting], left)

    def _wait_until_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not all(process.gone for process in self.processes):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.poll(left)
        return True


def _pipe(pump: Pump, output: WorkerOutput, stream: str, ends: contextlib.ExitStack) -> int:
    """Returns the writing end of a new pipe to the pump; `ends` closes it in this process."""
    reading, writing = os.pipe()
    ends.callback(os.close, writing)
    pump.add(reading, output, stream)
    return writing
