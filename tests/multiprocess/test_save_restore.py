"""Saving and restoring on real clusters of 1 to 4 workers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from distckpt.core import manifest_json
from distckpt.core.protocol.write_plan import OBJECT_GRAPH_KEY
from distckpt.core.tensorflow_format import index_reader
from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage

pytestmark = pytest.mark.cluster

SIZES = (1, 2, 3, 4)


def manifest(directory, name="ckpt-1"):
    return manifest_json.parse(Path(directory, f"{name}.manifest.json").read_bytes())


def leftovers(directory):
    """What is neither a checkpoint's nor the `checkpoint` file nor the term's."""
    found = []
    for path in Path(directory).rglob("*"):
        relative = str(path.relative_to(directory))
        known = relative == "checkpoint" or relative.startswith(
            ("ckpt-", "best-", ".distckpt/terms")
        )
        if path.is_file() and (not known or ".pending-" in relative or "tmp" in path.name):
            found.append(relative)
    return found


@pytest.fixture(scope="module")
def saved(pools, tmp_path_factory):
    """Returns get(n): directory and results of two saves by n workers."""
    made = {}

    def get(workers):
        if workers not in made:
            directory = tmp_path_factory.mktemp(f"saved-by-{workers}")
            results = pools(workers).run(
                "saving.save", directory=str(directory), saves=2, seed=workers
            )
            made[workers] = (directory, results)
        return made[workers]

    return get


@pytest.mark.parametrize("workers", SIZES)
def test_every_worker_returns_the_same_path_and_lists_the_same(saved, workers):
    directory, results = saved(workers)
    want = [f"{directory}/ckpt-1", f"{directory}/ckpt-2"]
    for result in results:
        assert result["paths"] == want
        assert result["checkpoints"] == want
        assert result["latest"] == want[-1]
    assert leftovers(directory) == []


@pytest.mark.parametrize("workers", SIZES)
def test_each_worker_writes_its_share_and_the_object_graph_is_written_once(saved, workers):
    directory, _ = saved(workers)
    written = manifest(directory, "ckpt-2")
    Verifier(LocalStorage(), str(directory)).verify("ckpt-2")
    shares = [w.bytes for w in written.workers]
    assert len(shares) == workers
    assert max(shares) <= 1.10 * sum(shares) / workers
    state = sum(p.size for e in written.entries for p in e.pieces)
    assert sum(f.size for f in written.files) == state  # nothing is written twice
    graph = [e for e in written.entries if e.key == OBJECT_GRAPH_KEY]
    assert [len(e.pieces) for e in graph] == [1]
    for name in (f.name for f in written.files):
        assert os.path.getsize(directory / name) > 0


@pytest.mark.parametrize("writers", SIZES)
@pytest.mark.parametrize("readers", SIZES)
def test_what_n_workers_saved_m_workers_restore(pools, saved, writers, readers):
    directory, results = saved(writers)
    # Each replica added its number plus one, twice; the checkpoint has the sum over replicas.
    total = 2 * sum(range(1, writers + 1))
    for result in pools(readers).run("saving.restore", directory=str(directory)):
        assert result["path"] == f"{directory}/ckpt-2"
        assert result["digest"] == results[0]["digest"]
        assert result["counter"] == 2
        assert result["total"] == pytest.approx(total)
        assert result["checkpoints"] == results[0]["checkpoints"]


@pytest.mark.parametrize("writers", SIZES)
def test_plain_tensorflow_restores_what_n_workers_saved(saved, writers, plain):
    directory, results = saved(writers)
    assert plain.digest(str(directory)) == results[0]["digest"]


def test_a_dedicated_chief_takes_part_as_worker_0(pools, tmp_path, plain):
    pool = pools(3, chief=True)
    results = pool.run("saving.save", directory=str(tmp_path), saves=1)
    assert {r["latest"] for r in results} == {f"{tmp_path}/ckpt-1"}
    assert len(manifest(tmp_path).workers) == 3
    assert plain.digest(str(tmp_path)) == results[0]["digest"]
    for result in pool.run("saving.restore", directory=str(tmp_path)):
        assert result["digest"] == results[0]["digest"]


def test_of_variables_that_differ_between_workers_the_chiefs_are_saved(pools, tmp_path):
    results = pools(2).run("saving.of_first_replicas", directory=str(tmp_path))
    assert [set(r["held"]) for r in results] == [{1.0}, {2.0}]  # otherwise this would prove nothing
    assert [set(r["restored"]) for r in results] == [{1.0}, {1.0}]
    reader = tf.train.load_checkpoint(results[0]["path"])
    saved = [reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if "VALUE" in key]
    assert len([value for value in saved if np.all(value == 1.0)]) == 10 + 1  # the save counter
    for entry in manifest(tmp_path).entries:
        assert len(entry.pieces) == 1


@pytest.mark.parametrize("workers", [2, 4])
def test_a_huge_table_is_split_between_the_workers(pools, tmp_path, workers):
    pools(workers).run("saving.sizes", directory=str(tmp_path), megabytes=32)
    written = manifest(tmp_path)
    shares = [w.bytes for w in written.workers]
    assert max(shares) <= 1.10 * sum(shares) / workers
    table = next(e for e in written.entries if e.key.startswith("table/"))
    assert len(table.pieces) == workers
    assert all(p.spec for p in table.pieces)


def test_two_managers_in_one_program_do_not_disturb_each_other(pools, tmp_path):
    results = pools(2).run("saving.two_managers", directory=str(tmp_path))
    assert results[0] == results[1]
    assert results[0]["a"] == [f"{tmp_path}/a/ckpt-4", f"{tmp_path}/a/ckpt-7"]
    assert results[0]["b"] == [f"{tmp_path}/b/ckpt-8"]
    assert results[0]["best"] == [f"{tmp_path}/a/best-9"]
    for folder, name in (("a", "ckpt-7"), ("b", "ckpt-8"), ("a", "best-9")):
        Verifier(LocalStorage(), str(tmp_path / folder)).verify(name)
    assert leftovers(tmp_path / "a") == []


def test_the_same_number_saved_again_replaces_the_checkpoint(pools, tmp_path, plain):
    results = pools(3).run("saving.save_twice_same_number", directory=str(tmp_path))
    assert plain.digest(str(tmp_path)) == results[0]["second"]["digest"]
    assert results[0]["second"]["digest"] != results[0]["first"]["digest"]
    written = manifest(tmp_path, "ckpt-7")
    index = index_reader.read_index((tmp_path / "ckpt-7.index").read_bytes())
    names = {f.name for f in written.files}
    assert {p.name for p in tmp_path.glob("ckpt-7.data-*")} == names
    assert index.num_shards == len(names) == 4  # three, and an empty file for other names
    assert leftovers(tmp_path) == []


def test_max_to_keep_1_keeps_the_newest(pools, tmp_path):
    results = pools(2).run("saving.save", directory=str(tmp_path), saves=3, max_to_keep=1)
    assert results[0]["checkpoints"] == [f"{tmp_path}/ckpt-3"]
    assert sorted(p.name for p in tmp_path.glob("ckpt-*.index")) == ["ckpt-3.index"]
    assert len(list(tmp_path.glob("ckpt-*.data-*"))) == 2
    assert leftovers(tmp_path) == []


def test_all_fall_back_together_over_a_damaged_checkpoint(pools, tmp_path):
    pool = pools(3)
    pool.run("saving.save", directory=str(tmp_path), saves=3)
    damaged = next(p for p in tmp_path.glob("ckpt-3.data-00001-*"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    results = pool.run("saving.restore", directory=str(tmp_path))
    assert {r["path"] for r in results} == {f"{tmp_path}/ckpt-2"}
    assert len({str(r["digest"]) for r in results}) == 1
    assert {r["latest"] for r in results} == {f"{tmp_path}/ckpt-2"}
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert after == before  # restoring writes nothing


def test_restore_fails_on_all_when_every_checkpoint_is_damaged(pools, tmp_path):
    pool = pools(2)
    pool.run("saving.save", directory=str(tmp_path), saves=2)
    for path in tmp_path.glob("ckpt-*.data-00000-*"):
        path.write_bytes(path.read_bytes()[:-1])
    results = pool.run("saving.restore", directory=str(tmp_path))
    assert {r["error"] for r in results} == {"RestoreError"}
    assert results[0]["text"] == results[1]["text"]
    assert "ckpt-1" in results[0]["text"]
    assert "ckpt-2" in results[0]["text"]


def test_init_fn_runs_on_every_worker_only_if_there_is_no_checkpoint(pools, tmp_path):
    for result in pools(2).run("saving.init_fn", directory=str(tmp_path)):
        assert result == {"first": None, "before": 1, "second": f"{tmp_path}/ckpt-1", "after": 1}


def test_the_interval_decides_alike_on_all_workers(pools, tmp_path):
    results = pools(2).run("saving.interval", directory=str(tmp_path))
    paths = [f"{tmp_path}/ckpt-{i}" for i in (1, 2, 3)]
    assert results[0] == [paths[0], None, None, paths[1], None, None, paths[2]]
    assert results[1] == results[0]


def test_a_keras_3_model_and_optimizer_are_saved_and_restored(pools, tmp_path):
    results = pools(2).run("saving.model_and_optimizer", directory=str(tmp_path))
    assert all(r["same"] for r in results)
    shares = [w.bytes for w in manifest(tmp_path).workers]
    assert min(shares) > 0.5 * max(shares)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_worker_goes_on_with_what_only_it_has(pools, tmp_path, asynchronous):
    asked = {"directory": str(tmp_path), "asynchronous": asynchronous}
    first = pools(3).run("saving.worker_state", draw=17, save=True, **asked)
    second = pools(3).run("saving.worker_state", draw=0, save=False, **asked)
    assert {r["restored"] for r in second} == {f"{tmp_path}/ckpt-1"}
    assert [r["after"] for r in second] == [r["after"] for r in first]
    assert len({str(r["after"]) for r in second}) == 3
    with_other_workers = pools(2).run("saving.worker_state", draw=0, save=True, **asked)
    assert {r["restored"] for r in with_other_workers} == {f"{tmp_path}/ckpt-1"}
    assert [r["after"] for r in with_other_workers] == [r["before"][:4] for r in first[:2]]
    assert leftovers(tmp_path) == []
