"""What a process ends with whose workers miss each other, start after start: real interpreters.

A manager is not needed for it: that one calls `watch` is shown by multiprocess/test_launch.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import distckpt

SAID = "nothing has been committed to"


def end(*directories, worker=0, before=""):
    """Returns how a process ends that is worker `worker` of jobs that save to `directories`."""
    watched = "".join(f"stalls.watch({str(d)!r}, {worker})\n" for d in directories)
    code = (
        "import distckpt\nfrom distckpt.manager import stall_watch as stalls\n" + before + watched
    )
    code += "raise distckpt.errors.DeadlineExceededError('worker 7 never came')"
    path = os.pathsep.join([str(Path(distckpt.__file__).parents[1]), os.environ["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "DISTCKPT_EXIT_CODES": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_a_second_end_without_a_commit_counts_and_says_why(tmp_path):
    first, second = end(tmp_path), end(tmp_path)
    assert [first.returncode, second.returncode] == [69, 70], second.stderr
    assert SAID not in first.stderr
    assert (
        f"{SAID} {tmp_path} since. So this one ends with exit code 70, which counts as a failure."
        in second.stderr
    )
    assert "worker 7 never came" in second.stderr


def test_of_two_directories_neither_may_get_anywhere(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert end(one).returncode == 69
    assert end(one, two).returncode == 69
    assert end(one, two).returncode == 70


def test_a_directory_that_does_not_answer_counts_for_nothing(tmp_path):
    hang = "import time\nstalls._PATIENCE, stalls._look = 0.5, lambda *_: time.sleep(600)\n"
    assert end(tmp_path).returncode == 69
    ended = end(tmp_path, before=hang)
    assert ended.returncode == 69, ended.stderr
    assert SAID not in ended.stderr


def test_a_directory_that_cannot_be_written_makes_it_no_worse(tmp_path):
    (tmp_path / "run").write_text("a file")
    ended = end(tmp_path / "run")
    assert ended.returncode == 69, ended.stderr
    assert "Cannot find out whether this job advances" in ended.stderr
