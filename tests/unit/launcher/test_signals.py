"""Signals to ``distckpt launch``, and its sudden death."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from .conftest import LEAVE_PID, read_until


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_passed_on_and_workers_may_finish(
    start, processes, programs: Path, number: int, exit_code: int
) -> None:
    launcher = start("launch", "--workers", 2, "--", sys.executable, programs / "polite.py")
    pids = processes.wait_for(2)
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=300)
    assert launcher.returncode == exit_code
    name = signal.Signals(number).name.encode()
    assert out.count(b"got " + name) == 2
    assert name + b": forwarded to the workers, which have 30 s" in err
    processes.all_gone(pids)


def test_workers_that_fail_because_of_the_signal_are_not_started_again(
    start, processes, programs: Path
) -> None:
    code = LEAVE_PID + "import time; time.sleep(600)"
    options = ["--workers", 2, "--max-restarts", 5]
    launcher = start("launch", *options, "--", sys.executable, "-c", code)
    pids = processes.wait_for(2)
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 130
    assert err.count(b"KeyboardInterrupt") == 2
    assert b"restart 1" not in err
    processes.all_gone(pids)


def test_the_grace_period_ends_with_sigkill(start, processes, programs: Path) -> None:
    command = ["--workers", 2, "--grace", 0.3, "--", sys.executable, programs / "family.py"]
    launcher = start("launch", *command)
    pids = processes.wait_for(6)
    launcher.terminate()
    _, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 143
    assert b"not ended in time: worker 0, worker 1; killing" in err
    processes.all_gone(pids)


def test_a_second_sigint_kills_at_once(start, processes, programs: Path) -> None:
    command = ["--workers", 2, "--grace", 600, "--", sys.executable, programs / "family.py"]
    launcher = start("launch", *command)
    pids = processes.wait_for(6)
    launcher.send_signal(signal.SIGINT)
    read_until(launcher.stderr.fileno(), b"forwarded")
    assert all(map(processes.alive, pids))
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 130
    assert b"SIGINT again" in err
    processes.all_gone(pids)


def _ignore_signals() -> None:
    """Does what nohup, and a shell that starts a program in the background of a script, does."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def test_nohup_is_honoured(start, processes, programs: Path) -> None:
    launcher = start(
        "launch",
        *["--workers", 1, "--", sys.executable, programs / "polite.py"],
        preexec_fn=_ignore_signals,
    )
    processes.wait_for(1)
    launcher.send_signal(signal.SIGHUP)
    launcher.terminate()
    launcher.communicate(timeout=300)
    assert launcher.returncode == 143


def test_workers_have_default_signals_whatever_the_launcher_ignores(start) -> None:
    code = "import signal as s; print([s.getsignal(n) == s.SIG_IGN for n in (1, 2, 3, 15)])"
    command = ["--workers", 1, "--", sys.executable, "-c", code]
    launcher = start("launch", *command, preexec_fn=_ignore_signals)
    out, _ = launcher.communicate(timeout=300)
    assert b"[False, False, False, False]" in out


def test_a_launcher_that_is_killed_takes_all_descendants_along(
    start, processes, programs: Path
) -> None:
    launcher = start("launch", "--workers", 2, "--", sys.executable, programs / "family.py")
    pids = processes.wait_for(6)
    descendants = [child.pid for child in psutil.Process(launcher.pid).children(recursive=True)]
    assert set(pids) < set(descendants), "the guards are there, too"
    launcher.kill()
    launcher.wait()
    processes.all_gone(descendants)


def test_what_a_worker_left_behind_is_gone_when_the_launcher_ends(
    start, processes, programs: Path
) -> None:
    command = ["--workers", 1, "--stop-grace", 0.2, "--", sys.executable]
    launcher = start("launch", *command, programs / "family.py", 5)
    pids = processes.wait_for(3)
    launcher.communicate(timeout=300)
    assert launcher.returncode == 5
    assert not any(map(processes.alive, pids))
