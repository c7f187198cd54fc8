"""Tests in a process of their own, because a process chooses its Keras and devices only once."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]


def run_tests(folder, *arguments, timeout=500, **env):
    """Runs tests of a folder, which must pass; returns what pytest prints.

    Args:
      folder: The folder.
      arguments: Its files to run, and options for pytest.
      timeout: Seconds.
      env: More environment variables.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + [str(folder / a) if a.endswith(".py") else a for a in arguments],
        env={**os.environ, **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    return done.stdout
