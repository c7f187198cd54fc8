"""Real processes that do not import TensorFlow, as they are forked from one that has done so.

Importing TensorFlow costs seconds; a fork of a process that has imported it, and has done nothing
else, costs a tenth of one. A test needs a new Python instead if it is about Python's start or end,
the import of TensorFlow or the launcher, or if it sets a variable that TensorFlow reads when it is
imported: ``TF_USE_LEGACY_KERAS``, ``TF_CPP_MIN_LOG_LEVEL``.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from multiprocessing import connection, forkserver
from pathlib import Path

import warm_program

from distckpt.launcher.cluster import make_run_id
from distckpt.launcher.ports import pick_ports
from distckpt.launcher.tasks import make_tasks, tf_config, worker_environment

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
_READ_AT_IMPORT = ("TF_CONFIG", "TF_USE_LEGACY_KERAS")
_IMPORTED = ("tensorflow", "distckpt.manager.checkpoint_manager", "warm_program")
_context = multiprocessing.get_context("forkserver")


def _start_server():
    """Starts the process that is forked, unless it runs, with none of a test's variables.

    It has imported distckpt, too, but has made nothing of it.
    """
    _context.set_forkserver_preload(list(_IMPORTED))
    kept = dict(os.environ)
    for name in _READ_AT_IMPORT:
        os.environ.pop(name, None)
    os.environ.update(_QUIET)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(kept)


def start(command, environment, folder, stdout, stderr):
    """Starts a program in a session of its own; it ends with this process, at the latest.

    Args:
      command: The path of a Python program, and its arguments.
      environment: All environment variables.
      folder: The working directory.
      stdout: The file to append its standard output to.
      stderr: The same for its standard error.

    Returns:
      The `multiprocessing.Process`.
    """
    arguments = ([str(word) for word in command], dict(environment), str(folder), stdout, stderr)
    _start_server()
    process = _context.Process(target=warm_program.run, args=arguments, daemon=True)
    process.start()
    return process


def run(command, *, env, cwd, timeout):
    """Does what `subprocess.run` does when it captures the output."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        process = start(command, env, cwd, str(out), str(err))
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, out.read_bytes(), err.read_bytes())
        texts = [path.read_text(errors="replace") for path in (out, err)]
        return subprocess.CompletedProcess(command, process.exitcode, *texts)


@dataclasses.dataclass(frozen=True)
class Worker:
    """One worker at one moment, as `distckpt.launcher.WorkerProcess`."""

    index: int
    pid: int
    returncode: int | None


class WarmCluster:
    """What tests need of `distckpt.launcher.LocalCluster`, but its workers are forked.

    Args:
      command: The path of a Python program, and its arguments.
      workers: How many processes.
      chief: Whether the first one is the task "chief".
      env: Variables for every worker, in addition to those of this process.
    """

    def __init__(self, command, *, workers, chief=False, env=None):
        self._command = command
        self._tasks = make_tasks(workers, chief)
        self._env = env or {}
        self._folder = tempfile.TemporaryDirectory()
        self._processes = []

    def __enter__(self):
        return self.start()

    def __exit__(self, *unused):
        self.close()

    def start(self):
        """Starts all workers."""
        tasks = self._tasks
        addresses = [f"127.0.0.1:{port}" for port in pick_ports(len(tasks))]
        run_id = make_run_id()
        for index, task in enumerate(tasks):
            config = tf_config(tasks, addresses, task)
            environment = worker_environment(
                os.environ, self._env, tf_config=config, run_id=run_id, restart=0
            )
            log = self._log(index)
            self._processes.append(start(self._command, environment, os.getcwd(), log, log))
        return self

    def close(self):
        """Kills what still runs."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._folder.cleanup()

    def _log(self, index):
        return str(Path(self._folder.name, f"worker-{index}"))

    @property
    def processes(self):
        """The workers as they are now."""
        return tuple(Worker(i, p.pid, p.exitcode) for i, p in enumerate(self._processes))

    def poll(self, timeout):
        """Waits until a worker ends, for `timeout` seconds at the longest."""
        running = [process.sentinel for process in self._processes if process.exitcode is None]
        connection.wait(running, timeout)

    def wait(self, timeout):
        """Waits until all have ended; returns how.

        Raises:
          TimeoutError: Some still run after `timeout` seconds; the text has their output.
        """
        deadline = time.monotonic() + timeout
        for index, process in enumerate(self._processes):
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                raise TimeoutError(f"worker {index} still runs: {self.output(index)}")
        return self.processes

    def kill(self, index, signum=signal.SIGKILL):
        """Sends a signal to a worker that may have ended."""
        process = self._processes[index]
        if process.exitcode is None:
            os.kill(process.pid, signum)

    def signal_all(self, signum):
        """Sends a signal to all workers."""
        for index in range(len(self._processes)):
            self.kill(index, signum)

    def output(self, index):
        """Returns what a worker has written so far."""
        path = Path(self._log(index))
        return path.read_text(errors="replace") if path.exists() else ""
