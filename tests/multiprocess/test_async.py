"""Asynchronous saves on real clusters, with training going on."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("saves", "workers", "on_read"),
    [(30, 2, False), (100, 2, False), (100, 2, True), (100, 3, True)],
)
def test_collectives_run_without_a_pause_during_saves(pools, tmp_path, saves, workers, on_read):
    pool = pools(workers)
    results = pool.run(
        "background.async_while_training",
        timeout=400,
        directory=str(tmp_path),
        saves=saves,
        on_read=on_read,
    )
    names = [f"ckpt-{saves - 2}", f"ckpt-{saves - 1}", f"ckpt-{saves}"]
    for result in results:
        assert result["checkpoints"] == [f"{tmp_path}/{name}" for name in names]
        assert result["saved"] == results[0]["saved"]
        assert result["steps_in_flight"] > saves / 5  # otherwise the saves blocked
    assert list(results[0]["saved"]) == names
    for name, expected in results[0]["saved"].items():
        for found in pool.run("background.restored_by_plain", path=f"{tmp_path}/{name}"):
            assert found == expected


@pytest.mark.parametrize("ask", ["sync", "save"])
@pytest.mark.parametrize("where", [0, 1])
def test_a_failure_in_one_background_reaches_all_and_the_next_save_works(
    pools, tmp_path, where, ask
):
    results = pools(2).run(
        "failing.async_disk_full_on_one",
        directory=str(tmp_path),
        limit=60_000,
        where=where,
        ask=ask,
    )
    for result in results:
        assert result["started"]["path"] == f"{tmp_path}/ckpt-1"
        assert result["asked"]["error"] == results[0]["asked"]["error"]
        assert result["asked"]["error"] in ("SaveFailedError", "StorageFullError")
        assert f"worker {where}" in result["asked"]["text"]
        assert result["listed"] == []
        assert result["again"]["path"] == f"{tmp_path}/ckpt-2"
        assert result["checkpoints"] == [f"{tmp_path}/ckpt-2"]


def test_states_that_differ_are_found_in_the_background(pools, tmp_path):
    for result in pools(2).run("failing.async_other_model_on_one", directory=str(tmp_path)):
        assert result["save"]["path"] == f"{tmp_path}/ckpt-1"
        assert result["sync"]["error"] == "StateMismatchError"
        assert "extra" in result["sync"]["text"]


def test_all_workers_save_at_the_same_steps(pools, tmp_path):
    results = pools(3).run("background.policies", directory=str(tmp_path))
    assert results[1] == results[2] == results[0]
    assert len(results[0]["saved"]) >= 3
    assert results[0]["checkpoints"][-1] == results[0]["saved"][-1][1]
