"""Input under the strategies of one process, which needs a process with a divided CPU."""

from __future__ import annotations

import pathlib

from ..kit.another_process import run_tests


def test_the_strategies_of_one_process():
    assert "skipped" not in run_tests(pathlib.Path(__file__).parent, "strategy_checks.py")
