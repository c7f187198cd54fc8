"""Checks that need a process of their own: another Keras, a divided CPU. One process for all."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
CHECKS = ["keras_checks.py", "strategy_checks.py"]


def test_keras_2_and_the_strategies_of_one_process():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(str(HERE / name) for name in CHECKS)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        cwd=HERE.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
