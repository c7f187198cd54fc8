"""The guard by itself: the test plays the launcher."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distckpt.launcher import guard

# Shorter than the 0.2 s that `polite.py` needs to end.
LINGER = 0.1


class Launcher:
    """The other end of a guard's socket."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(30.0)
        with theirs:
            self.guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno()), str(LINGER)],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        self._lines = self._socket.makefile("rb")

    def tell(self, **message: Any) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def run(self, *command: object) -> None:
        self.tell(command=[str(word) for word in command], env=dict(os.environ))

    def hear(self) -> dict[str, Any] | None:
        """Returns the next message, or None when the guard has ended."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def disappear(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture
def launcher(processes) -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.disappear()
    with launcher.guard:
        launcher.guard.wait(30.0)


def test_the_guard_reports_start_and_end_and_then_ends(launcher: Launcher) -> None:
    launcher.run(sys.executable, "-c", "raise SystemExit(3)")
    started, ended = launcher.hear(), launcher.hear()
    assert started is not None
    assert ended is not None
    assert started["pid"] not in (os.getpid(), launcher.guard.pid)
    assert ended["returncode"] == 3
    assert launcher.hear() is None
    assert launcher.guard.wait(30.0) == 0


def test_a_worker_killed_by_a_signal_has_a_negative_returncode(launcher: Launcher) -> None:
    launcher.run("sleep", 600)
    started = launcher.hear()
    assert started is not None
    os.kill(started["pid"], signal.SIGSEGV)
    ended = launcher.hear()
    assert ended is not None
    assert ended["returncode"] == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("command", "number"), [("no-such-command", 2), ("/", 13), ("/etc/passwd", 13)]
)
def test_a_command_that_cannot_be_started_is_reported(
    launcher: Launcher, command: str, number: int
) -> None:
    launcher.run(command)
    message = launcher.hear()
    assert message is not None
    assert message["errno"] == number
    assert launcher.hear() is None


def test_the_worker_gets_exactly_the_bytes_of_its_arguments_and_environment(
    launcher: Launcher,
) -> None:
    code = "import os, sys; os.write(1, os.fsencode(sys.argv[1]) + os.environb[b'V'])"
    launcher.tell(command=[sys.executable, "-c", code, "\xff\xe4"], env={"V": "\xfe"})
    assert launcher.guard.stdout is not None
    with launcher.guard.stdout:
        assert launcher.guard.stdout.read() == b"\xff\xe4\xfe"


def test_the_worker_starts_with_default_signal_handlers_and_no_foreign_descriptors(
    launcher: Launcher,
) -> None:
    code = (
        "import os, signal as s\n"
        "print([s.getsignal(n) for n in (s.SIGTERM, s.SIGHUP, s.SIGCHLD)] == [s.SIG_DFL] * 3,"
        " s.getsignal(s.SIGINT) is s.default_int_handler, os.read(0, 1),"
        " [fd for fd in range(3, 100) if os.path.exists(f'/proc/self/fd/{fd}')])"
    )
    launcher.run(sys.executable, "-c", code)
    assert launcher.guard.stdout is not None
    with launcher.guard.stdout:
        assert launcher.guard.stdout.read() == b"True True b'' []\n"


def test_end_of_file_kills_the_worker_and_all_its_descendants(
    launcher: Launcher, processes, programs: Path
) -> None:
    launcher.run(sys.executable, programs / "family.py")
    pids = processes.wait_for(3)
    launcher.disappear()
    launcher.guard.wait(30.0)
    processes.all_gone(pids)


def test_kill_reaches_all_descendants_and_the_end_is_reported(
    launcher: Launcher, processes, programs: Path
) -> None:
    launcher.run(sys.executable, programs / "family.py")
    pids = processes.wait_for(3)
    launcher.hear()
    launcher.tell(kill=True)
    ended = launcher.hear()
    assert ended is not None
    assert ended["returncode"] == -signal.SIGKILL
    assert launcher.hear() is None
    processes.all_gone(pids)


def test_what_a_worker_leaves_behind_is_killed_after_a_while(
    launcher: Launcher, processes, programs: Path
) -> None:
    launcher.run(sys.executable, programs / "family.py", 0)
    launcher.tell(signal=signal.SIGCONT)  # not one that asks it to end
    pids = processes.wait_for(3)
    launcher.hear()
    ended = launcher.hear()
    assert ended is not None
    assert ended["returncode"] == 0
    assert launcher.hear() is None, "the guard ends when all is gone"
    processes.all_gone(pids)


def test_a_child_of_a_shell_that_ended_may_finish_when_the_worker_is_stopped(
    launcher: Launcher, processes, programs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    launcher.run("sh", "-c", f'"{sys.executable}" "{programs}/polite.py" > "{out}"; true')
    processes.wait_for(1)
    launcher.hear()
    launcher.tell(signal=signal.SIGTERM)
    ended = launcher.hear()
    assert ended is not None
    assert ended["returncode"] == -signal.SIGTERM, "the shell itself ends at once"
    assert launcher.hear() is None
    assert out.read_text() == "ready\ngot SIGTERM\n"


def test_a_guard_that_is_killed_takes_its_worker_along(launcher: Launcher, processes) -> None:
    launcher.run("sleep", 600)
    started = launcher.hear()
    assert started is not None
    launcher.guard.kill()
    processes.all_gone([started["pid"]])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_guard_does_not_end_by_a_signal_meant_for_the_whole_machine(
    launcher: Launcher, processes, programs: Path, number: int
) -> None:
    launcher.run(sys.executable, programs / "polite.py")
    processes.wait_for(1)
    launcher.hear()
    launcher.guard.send_signal(number)
    launcher.tell(signal=signal.SIGTERM)
    ended = launcher.hear()
    assert ended is not None
    assert ended["returncode"] == 0


def test_a_launcher_that_vanishes_before_it_said_anything_leaves_no_guard(
    launcher: Launcher,
) -> None:
    launcher.disappear()
    assert launcher.guard.wait(30.0) == 0


def test_a_dead_launcher_is_noticed_though_a_forked_child_holds_its_socket(
    processes, tmp_path: Path
) -> None:
    # A middle process starts the guard, forks a child that inherits its end, and is killed.
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from distckpt.launcher.guarded import GuardedProcess\n"
        "worker = GuardedProcess(['sleep', '600'], dict(os.environ), 1, 2)\n"
        "while worker.pid is None: worker.receive()\n"
        "child = os.fork()\n"
        "if child == 0: signal.pause()\n"
        "print(worker.pid, child, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(guard.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True
    ) as middle:
        assert middle.stdout is not None
        worker, child = map(int, middle.stdout.readline().split())
        try:
            processes.all_gone([worker])
            assert processes.alive(child), "or the socket would have been closed"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
