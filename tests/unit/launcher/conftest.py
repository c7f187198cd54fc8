"""The real command line, and a look at the process table, for all tests of the launcher."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import pytest

import distckpt.launcher

from ..kit.eventually import eventually

ROOT = Path(distckpt.launcher.__file__).parents[2]
PATIENCE = 30.0
# In a worker: leaves its process id where `Processes` looks for it.
LEAVE_PID = "import os, pathlib\npathlib.Path(os.environ['PIDS'], f'{os.getpid()}.pid').touch()\n"


class Processes:
    """Processes whose ids workers leave in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def wait_for(self, count: int) -> list[int]:
        """Waits until `count` processes have left their id; returns the ids."""
        eventually(lambda: len(self._pids()) >= count, f"only {self._pids()}")
        return self._pids()

    def all_gone(self, pids: Iterable[int]) -> None:
        pids = list(pids)
        eventually(lambda: not any(map(self.alive, pids)), f"of {pids} some still run")

    def alive(self, pid: int) -> bool:
        """Whether a process runs; a zombie that nobody collects does not."""
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def _pids(self) -> list[int]:
        return [int(file.stem) for file in self.directory.glob("*.pid")]


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    directory = tmp_path / "pids"
    directory.mkdir()
    monkeypatch.setenv("PIDS", str(directory))
    return Processes(directory)


@pytest.fixture
def programs() -> Path:
    return Path(__file__).parent / "programs"


def _environment(changes: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    dropped = ("NO_COLOR", "TF_CPP_MIN_LOG_LEVEL", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONPATH": path, "TERM": "xterm", **changes}


@pytest.fixture
def start(processes: Processes) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts ``python -m distckpt ...`` as a process; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object, env: dict[str, str] | None = None, **options: object):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "distckpt", *map(str, arguments)]
        process = subprocess.Popen(command, env=_environment(env or {}), **{**pipes, **options})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m distckpt ...`` to its end."""

    def run(*arguments: object, env: dict[str, str] | None = None):
        process = start(*arguments, env=env)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(
            process.args, process.returncode, out.decode(), err.decode()
        )

    return run


@pytest.fixture
def launch(run) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m distckpt launch OPTIONS -- python -c CODE`` to its end."""

    def launch(*arguments: object, env: dict[str, str] | None = None):
        *options, code = arguments
        return run("launch", *options, "--", sys.executable, "-c", code, env=env)

    return launch


def read_until(fd: int, text: bytes) -> bytes:
    """Reads until `text` has come; returns all that was read."""
    received, deadline = b"", time.monotonic() + PATIENCE
    while text not in received:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no {text!r} in {received!r}"
        received += os.read(fd, 4096)
    return received
