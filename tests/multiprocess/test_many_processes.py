"""Many real processes that save often: the small form of a benchmark; nothing is timed."""

from __future__ import annotations

import importlib
import pathlib

import pytest

pytestmark = pytest.mark.cluster
BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
WORKERS, SAVES = 12, 20
MOST_THREADS = 8
MOST_MEMORY = 100e6


@pytest.mark.parametrize("through", ["tensorflow", "directory"])
def test_all_take_part_in_every_save_with_few_threads(through, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("many_processes").run_apart(through, WORKERS, SAVES, 200)
    assert found["errors"] == []
    assert found["commits"] == SAVES
    assert found["threads"] <= MOST_THREADS
    assert found["memory"] <= MOST_MEMORY
