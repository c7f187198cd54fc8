"""Keras 3 models and optimizers."""

from __future__ import annotations

import pytest

from .keras_checks import *  # noqa: F403 - the checks themselves
from .keras_checks import keras


@pytest.fixture(autouse=True, scope="module")
def _third():
    assert keras.__version__.startswith("3")
