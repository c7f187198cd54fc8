"""Whoever reads the output of ``distckpt launch`` stops, goes away, or is slow."""

from __future__ import annotations

import sys
import time

import psutil

from .conftest import LEAVE_PID


def test_a_console_that_nobody_reads_does_not_delay_a_signal(start, processes) -> None:
    code = LEAVE_PID + "while True: os.write(1, b'x' * 10000 + b'\\n')"
    launcher = start("launch", "--workers", 2, "--", sys.executable, "-c", code)
    pids = processes.wait_for(2)
    time.sleep(0.5)  # for the pipe to fill up
    launcher.terminate()
    processes.all_gone(pids)
    assert launcher.wait(30.0) == 143


def test_a_reader_that_goes_away_does_not_stop_the_training(start, processes) -> None:
    code = "print('a', flush=True)\nfor _ in range(100000): print('b')\nopen(PATH, 'w').close()"
    done = processes.directory / "done"
    code = code.replace("PATH", repr(str(done)))
    launcher = start("launch", "--workers", 1, "--", sys.executable, "-c", code)
    launcher.stdout.readline()
    launcher.stdout.close()
    assert launcher.wait(30.0) == 0
    assert done.exists()


def test_the_last_output_waits_for_a_slow_reader(start, processes) -> None:
    # With their prefixes the lines are more than the launcher's own pipe can hold, so it must wait
    # for the reader long after the worker has ended.
    done = processes.directory / "done"
    code = f"import os; os.write(1, b'xxxxxxxxx\\n' * 6000); open({str(done)!r}, 'w').close()"
    launcher = start("launch", "--workers", 1, "--", sys.executable, "-c", code)
    deadline = time.monotonic() + 60.0
    while not done.exists() or psutil.Process(launcher.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.0)
    out, _ = launcher.communicate(timeout=300)
    assert out.count(b"x") == 9 * 6000
