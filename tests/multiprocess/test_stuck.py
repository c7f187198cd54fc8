"""SIGTERM while the main thread is in a call that does not return: it ends within the grace."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
PROGRAM = str(Path(__file__).with_name("stuck.py"))
GRACE = 2.0  # as in the program
SLACK = 5.0


@pytest.mark.parametrize(
    ("mode", "signals"), [("queue", 1), ("queue", 2), ("sleep", 1), ("log", 1)]
)
def test_it_ends_when_the_grace_is_over(tmp_path, mode, signals):
    command = [sys.executable, PROGRAM, str(tmp_path), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"STUCK\n", process.stderr.read()
            time.sleep(0.2)
            began = time.monotonic()
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            assert process.wait(60) == 76
        finally:
            process.kill()
        seconds = time.monotonic() - began
        log = process.stderr.read().decode()
    assert GRACE <= seconds < GRACE + SLACK
    if mode != "log":
        assert log.count("This worker is preempted; all workers save") == 1
        assert "This worker ends; the job resumes from the last checkpoint." in log
