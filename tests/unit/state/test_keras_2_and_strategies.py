"""State of tf-keras, and of strategies on a divided CPU: in one process that has both."""

from __future__ import annotations

import pathlib

import pytest

from ..kit.another_process import run_tests
from ..kit.tf_differences import KERAS_2_TAKES_SEEDS

TESTS = ["test_keras.py", "test_serializing.py", "strategy_checks.py"]


@pytest.mark.skipif(not KERAS_2_TAKES_SEEDS, reason="tf-keras before 2.19 fails on Python 3.12")
def test_keras_2_and_the_strategies_of_one_process():
    output = run_tests(pathlib.Path(__file__).parent, *TESTS, TF_USE_LEGACY_KERAS="1")
    assert "skipped" not in output
