"""State of tf-keras, and of strategies on a divided CPU: in one process that has both."""

from __future__ import annotations

import pathlib

import pytest

from ..kit.another_process import run_tests
from ..kit.tf_differences import KERAS_2_TAKES_SEEDS

TESTS = ["test_keras.py", "strategy_checks.py"]
FOLDER = pathlib.Path(__file__).parent

needs_keras_2 = pytest.mark.skipif(
    not KERAS_2_TAKES_SEEDS, reason="tf-keras before 2.19 fails on Python 3.12"
)


@needs_keras_2
def test_keras_2_and_the_strategies_of_one_process():
    output = run_tests(FOLDER, *TESTS, TF_USE_LEGACY_KERAS="1")
    assert "skipped" not in output


@needs_keras_2
def test_what_is_found_of_models_of_keras_2():
    models = ["-k", "model_and_its_optimizer"]
    output = run_tests(FOLDER, "test_object_tensors.py", *models, TF_USE_LEGACY_KERAS="1")
    assert "skipped" not in output
