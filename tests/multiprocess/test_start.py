"""Workers that meet before TensorFlow waits for them, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import portpicker
import pytest

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).with_name("meeting.py")


def run(directory, indices, count, deadline):
    """Starts some of `count` workers; returns (exit code, output) of each."""
    addresses = [f"127.0.0.1:{portpicker.pick_unused_port()}" for _ in range(count)]
    processes = []
    for index in indices:
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {"TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(directory), str(deadline)],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    return list(zip(codes, outputs, strict=True)), addresses


def test_a_strategy_made_after_the_meeting_works(tmp_path):
    ends, _ = run(tmp_path, [0, 1], 2, 100.0)
    for code, output in ends:
        assert code == 0, output
        assert "SAVED ckpt-1" in output


def test_a_worker_that_never_starts_is_named_by_all_that_have(tmp_path):
    ends, addresses = run(tmp_path, [0, 2], 3, 8.0)
    for code, output in ends:
        assert code == 1, output
        assert "NOT STARTED: Of 3 workers in TF_CONFIG" in output
        assert f"worker 1 ({addresses[1]})" in output
    assert list(tmp_path.iterdir()) == []
