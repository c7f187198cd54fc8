"""``distckpt launch`` on a real terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from .conftest import LEAVE_PID, read_until

# Makes its standard input its controlling terminal, as a login does, and becomes the command.
_LOGIN = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def terminal(start, monkeypatch: pytest.MonkeyPatch):
    """Runs ``distckpt launch`` on a terminal; yields a function that returns (process, fd)."""
    masters = []

    def launch(*arguments: object, env: dict[str, str] | None = None):
        master, slave = pty.openpty()
        masters.append(master)
        # After Ctrl-C the kernel drops output that nobody has read yet, possibly the answer to that
        # Ctrl-C; NOFLSH keeps it.
        modes = termios.tcgetattr(slave)
        modes[3] |= termios.NOFLSH
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
        with monkeypatch.context() as patch:
            popen = subprocess.Popen
            patch.setattr(
                subprocess,
                "Popen",
                lambda command, **rest: popen([sys.executable, "-c", _LOGIN, *command], **rest),
            )
            process = start("launch", *arguments, env=env, start_new_session=True, **streams)
        os.close(slave)
        return process, master

    yield launch
    for master in masters:
        os.close(master)


def test_ctrl_c_on_a_terminal_reaches_the_workers_once(terminal, processes, programs: Path) -> None:
    launcher, fd = terminal("--workers", 2, "--", sys.executable, programs / "polite.py")
    pids = processes.wait_for(2)
    os.write(fd, b"\x03")
    text = read_until(fd, b"got SIGINT")
    assert launcher.wait(30.0) == 130
    assert b"SIGINT: forwarded" in text
    assert b"again" not in text
    processes.all_gone(pids)


def test_ctrl_c_twice_on_a_terminal_kills(terminal, processes, programs: Path) -> None:
    command = ["--workers", 1, "--grace", 600, "--", sys.executable, programs / "family.py"]
    launcher, fd = terminal(*command)
    pids = processes.wait_for(3)
    os.write(fd, b"\x03")
    read_until(fd, b"forwarded")
    os.write(fd, b"\x03")
    read_until(fd, b"SIGINT again")
    assert launcher.wait(30.0) == 130
    processes.all_gone(pids)


def test_a_terminal_that_is_closed_ends_the_workers(start, processes, programs: Path) -> None:
    # The kernel then sends SIGHUP, and writing to the terminal fails.
    master, slave = pty.openpty()
    streams = dict.fromkeys(("stdout", "stderr"), slave)
    command = ["--workers", 1, "--", sys.executable, programs / "polite.py"]
    launcher = start("launch", *command, **streams)
    os.close(slave)
    pids = processes.wait_for(1)
    os.close(master)
    launcher.send_signal(signal.SIGHUP)
    assert launcher.wait(30.0) == 129
    processes.all_gone(pids)


def test_a_stopped_terminal_does_not_keep_ctrl_c_from_working(terminal, processes) -> None:
    code = LEAVE_PID + "while True: print('x' * 1000)"
    launcher, fd = terminal("--workers", 1, "--", sys.executable, "-c", code)
    pids = processes.wait_for(1)  # and nobody reads from `fd`
    time.sleep(0.5)
    os.write(fd, b"\x03")
    processes.all_gone(pids)
    assert launcher.wait(30.0) == 130


def test_names_are_coloured_on_a_terminal(terminal) -> None:
    launcher, fd = terminal("--workers", 1, "--", "echo", "hi")
    assert b"\x1b[36m[worker 0]\x1b[0m hi" in read_until(fd, b"hi")
    assert launcher.wait(30.0) == 0


def test_names_are_plain_on_a_terminal_with_no_color(terminal) -> None:
    launcher, fd = terminal("--workers", 1, "--", "echo", "hi", env={"NO_COLOR": "1"})
    assert b"\x1b" not in read_until(fd, b"[worker 0] hi")
    assert launcher.wait(30.0) == 0
