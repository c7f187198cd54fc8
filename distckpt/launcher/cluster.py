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

from distckpt.errors import ConfigurationError, DeadlineExceededError
from distckpt.launcher import outcome
from distckpt.launcher.console import Console
from distckpt.launcher.guarded import GuardedProcess
from distckpt.launcher.outcome import WorkerProcess
from distckpt.launcher.ports import pick_ports
from distckpt.launcher.pump import Pump
from distckpt.launcher.spec import LaunchSpec, check_seconds
from distckpt.launcher.tasks import make_tasks, tf_config, worker_environment
from distckpt.launcher.worker_output import WorkerOutput

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
    """Raises CommandError if the guard of `process` has said that `command` cannot be started."""
    if process.error is not None:
        text, number = process.error
        code = outcome.exit_code_of_error(number)
        raise CommandError(f"Cannot run {command[0]!r}: {text}.", code)


def make_run_id() -> str:
    """Returns a new ``DISTCKPT_RUN_ID``: the time, for people, and chance, to make it unique."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


class LocalCluster:
    """Workers on this machine, each with its ``TF_CONFIG``, that never outlive this process.

        with LocalCluster([sys.executable, "train.py"], workers=3) as cluster:
            cluster.kill(1)
            workers = cluster.wait(timeout=60)
            assert "lost worker 1" in cluster.output(0)

    Nothing is restarted and nothing is shown; that is what `distckpt.launcher.launch` adds. Leaving
    the ``with`` block kills what still runs. Use a cluster from one thread at a time. It starts
    once.
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
          command: As in `LaunchSpec`, and so are the next four.
          workers: Number of processes.
          chief: Whether the first process is the task "chief".
          env: Variables for every worker on top of those of this process.
          log_dir: Directory for the files ``<worker>.restart-<restart>.log``, or None.
          run_id: ``DISTCKPT_RUN_ID`` of the workers; default: a new one.
          restart: ``DISTCKPT_RESTART`` of the workers.
          console: Where to show what the workers write; default: nowhere.

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
        """All workers as they are now, in the order of their index; () before `start`."""
        for process in self._processes:
            process.receive()
        return tuple(self._describe(index) for index in range(len(self._processes)))

    def start(self) -> LocalCluster:
        """Starts all workers; returns when the command runs in each.

        Raises:
          CommandError: The command cannot be started; nothing of the cluster is left.
          ConfigurationError: There is no free port, or `log_dir` cannot be written.
          DeadlineExceededError: The machine is too busy even for this.
        """
        if self._state != "new":
            raise RuntimeError("A LocalCluster starts only once; make another one.")
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
          timeout: Seconds to wait at the most.
          *others: Further objects with a ``fileno()`` that end the wait when they are readable.
        """
        running = [process.fileno() for process in self._processes if not process.gone]
        wait_for_any([*running, *(other.fileno() for other in others)], timeout)
        return self.processes

    def wait(self, timeout: float) -> tuple[WorkerProcess, ...]:
        """Waits until all workers, and all that they started, have ended; returns how.

        Args:
          timeout: Seconds to wait at the most.

        Raises:
          DeadlineExceededError: Some have not; the text names them. They run on.
        """
        check_seconds("timeout", timeout)
        if not self._wait_until_gone(timeout):
            running = ", ".join(f"{p.name} (pid {p.pid})" for p in self.processes if not p.gone)
            raise DeadlineExceededError(f"After {timeout:g} s these still run: {running}.")
        self.close()  # nothing runs any more: carries the rest of the output
        return self.processes

    def kill(self, index: int, signum: int = signal.SIGKILL) -> None:
        """Sends a signal to worker `index`: to its process group, so to its children too.

        Nothing happens if it has ended.
        """
        if not 0 <= index < len(self._processes):
            raise IndexError(f"There is no process {index}; there are {len(self._processes)}.")
        self._processes[index].signal(signum)

    def signal_all(self, signum: int) -> None:
        """Sends a signal to the process groups of all workers."""
        for process in self._processes:
            process.signal(signum)

    def kill_all(self) -> None:
        """Sends SIGKILL to all workers and everything they started; does not wait."""
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
        """Kills what still runs and carries the rest of the output. May be repeated."""
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
        """Carries the rest of the output, when all workers have ended.

        Args:
          timeout: Seconds to wait for it at the most, because the console may be blocked.

        Returns:
          Whether all is done. If not, call it again.
        """
        return self._pump is None or self._pump.finish(timeout)

    def output(self, index: int) -> str:
        """Returns what worker `index` has written so far, stdout and stderr as they came.

        Only the last MiB; `log_dir` keeps it all. What is not UTF-8 becomes U+FFFD.
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
                complaint = f"The log directory cannot be written: {error}."
                if self._restart == 0:
                    raise ConfigurationError(complaint) from error
                pump.say(complaint)  # no reason to give up a job that has come this far
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
                    f"After {START_DEADLINE:g} s {len(waiting)} workers have not started."
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
