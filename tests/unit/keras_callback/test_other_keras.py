"""The same tests with tf-keras, and under a strategy, in processes of their own."""

from __future__ import annotations

import pathlib

import pytest

from ..kit.another_process import run_tests

HERE = pathlib.Path(__file__).parent
RESUMING = "test_resuming.py"
TESTS = [
    RESUMING,
    "test_fit_again.py",
    "test_best.py",
    "test_arguments.py",
    "test_keras_layers.py",
    "test_two_workers.py",
]


@pytest.mark.timeout(1800)
def test_tf_keras():
    run_tests(HERE, *TESTS, timeout=1700, TF_USE_LEGACY_KERAS="1")


@pytest.mark.timeout(1800)
def test_under_a_mirrored_strategy_of_two_devices():
    """Only tests of restoring run: each takes many times as long as on one device."""
    chosen = ("-k", "interruption or each_epoch or without")
    run_tests(HERE, RESUMING, *chosen, timeout=1700, DISTCKPT_TEST_REPLICAS="2")
