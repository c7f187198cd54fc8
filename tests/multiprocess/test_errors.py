"""Every worker raises the same clear error, and the next save works."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


def assert_all(results, error, *words):
    """All workers raised `error` with one text that has all `words`."""
    assert [r["error"] for r in results] == [error] * len(results), results
    assert len({r["text"] for r in results}) == 1, results
    for word in words:
        assert word in results[0]["text"]


def assert_no_attempt_left(directory):
    assert [p for p in Path(directory).iterdir() if ".pending-" in p.name] == []


def test_models_that_differ_are_named(pools, tmp_path):
    results = pools(3).run("failing.other_model_on_one", directory=str(tmp_path))
    assert_all(
        [r["bad"] for r in results],
        "StateMismatchError",
        "worker 1",
        "extra",
        "absent on the chief",
    )
    assert {r["good"]["path"] for r in results} == {f"{tmp_path}/ckpt-2"}
    assert results[0]["checkpoints"] == [f"{tmp_path}/ckpt-2"]
    assert_no_attempt_left(tmp_path)


def test_numbers_that_differ_are_named(pools, tmp_path):
    results = pools(2).run("failing.other_number_on_one", directory=str(tmp_path))
    assert_all(results, "StateMismatchError", "ckpt-10", "ckpt-11", "worker 1")


def test_directories_that_differ_are_named(pools, tmp_path):
    results = pools(2).run("failing.other_directory_on_one", directory=str(tmp_path))
    assert_all([r["save"] for r in results], "StateMismatchError", "workertemp_1", str(tmp_path))
    pools(2).run("saving.save", directory=str(tmp_path))
    results = pools(2).run("failing.restore_other_directory_on_one", directory=str(tmp_path))
    assert_all(results, "StateMismatchError", str(tmp_path), "worker 1")


def test_a_directory_that_is_not_shared_is_told_by_the_probe(pools, tmp_path):
    folders = [str(tmp_path / f"host-{i}") for i in range(2)]
    for folder in folders:
        os.mkdir(folder)
    results = pools(2).run("failing.directory_not_shared", folders=folders)
    assert_all(results, "DirectoryNotSharedError", "worker 1", "does not see")


def test_a_worker_that_comes_late_is_named_and_hears_the_same(pools, tmp_path):
    results = pools(3).run("failing.one_never_comes", directory=str(tmp_path))
    late = [r["late"] for r in results]
    assert_all(late, "DeadlineExceededError", "worker 1 never came", "4 s")
    assert late[0]["seconds"] < 6.0
    # It heard the chief's word when it came, so all are in step for the next save.
    assert {r["again"]["path"] for r in results} == {f"{tmp_path}/ckpt-2"}
    assert results[0]["checkpoints"] == [f"{tmp_path}/ckpt-2"]
    assert_no_attempt_left(tmp_path)


def test_a_worker_with_a_slow_disk_gets_more_time(pools, tmp_path):
    results = pools(2).run("failing.slow_disk_on_one", directory=str(tmp_path), seconds=3.0)
    assert {r["first"]["path"] for r in results} == {f"{tmp_path}/ckpt-1"}
    (warning,) = results[0]["said"]
    assert "takes longer than 4 s: worker 1 (" in warning
    assert ") is slow: flushing" in warning
    assert {r["again"]["path"] for r in results} == {f"{tmp_path}/ckpt-2"}


def test_a_worker_that_is_stuck_is_named_with_what_it_does(pools, tmp_path):
    results = pools(3).run("failing.slow_disk_on_one", directory=str(tmp_path), seconds=9.0)
    first = [r["first"] for r in results]
    assert_all(first, "DeadlineExceededError", "worker 1 (", ") is stuck: flushing, ", " MiB, last")
    done = "worker 0 and worker 2 have done their part"
    assert_all(first, "DeadlineExceededError", done, "py-spy dump")
    # All call the next save at once, though worker 1 left the first one long after the others.
    assert {r["again"]["path"] for r in results} == {f"{tmp_path}/ckpt-2"}
    assert_no_attempt_left(tmp_path)


@pytest.mark.parametrize(
    ("workers", "where", "in_background"), [(3, 0, False), (3, 2, True), (2, 1, False)]
)
def test_a_replica_that_deviates_is_named(pools, tmp_path, workers, where, in_background):
    options = {"where": where, "in_background": in_background}
    results = pools(workers).run("failing.one_deviates", directory=str(tmp_path), **options)
    others = ", ".join(str(w) for w in range(workers) if w != where)
    names = f"worker {where} differs from workers {others}"
    if workers == 2:
        names = "worker 0 and worker 1 hold different values"
    errors = [r["error"] for r in results]
    assert_all(
        errors, "ReplicaMismatchError", "medium/3", names, "Nothing was saved", "ckpt-1 (step"
    )
    for result in results:
        (warning,) = [said for said in result["warn"]["said"] if "medium/3" in said]
        assert names in warning
        assert "The save goes on" in warning
        assert result["off"]["said"] == result["mended"]["said"] == []
        paths = [result[mode]["path"] for mode in ("error", "warn", "off", "mended")]
        assert paths == [None, *(f"{tmp_path}/ckpt-{n}" for n in (2, 3, 4))]
    assert_no_attempt_left(tmp_path)


def test_a_worker_that_comes_late_to_a_restore_is_named(pools, tmp_path):
    pools(2).run("saving.save", directory=str(tmp_path))
    results = pools(2).run("failing.restore_without_one", directory=str(tmp_path))
    assert_all(results, "DeadlineExceededError", "worker 1")


@pytest.mark.parametrize("where", [0, 1])
def test_an_exception_on_one_worker_reaches_all_at_once(pools, tmp_path, where):
    results = pools(3).run("failing.capture_fails_on_one", directory=str(tmp_path), where=where)
    raised = results[where]["raised"]
    print("heard after", *(round(r["heard"] - raised, 3) for r in results), "s")
    for result in results:
        assert "SaveFailedError" in result["text"]
        assert "this state cannot be read" in result["text"]
        assert "in serialize" in result["trace"]
        assert result["heard"] - raised < 5.0  # usually a fraction of a second
    assert len({r["text"] for r in results}) == 1
    assert f"worker {where}" in results[0]["text"]
    number = 2 if where else 1  # the chief had not yet numbered the checkpoint
    assert {r["good"]["path"] for r in results} == {f"{tmp_path}/ckpt-{number}"}
    assert_no_attempt_left(tmp_path)


def test_a_write_error_on_one_worker_reaches_all_and_leaves_nothing(pools, tmp_path):
    results = pools(3).run("failing.file_size_limit_on_one", directory=str(tmp_path), limit=1 << 16)
    assert_all([r["bad"] for r in results], "SaveFailedError", "worker 1")
    assert results[0]["listed"] == [f"{tmp_path}/ckpt-1"]
    assert {r["again"]["path"] for r in results} == {f"{tmp_path}/ckpt-3"}
    assert_no_attempt_left(tmp_path)


def test_a_full_disk_fails_the_save_everywhere_and_room_mends_it(pools, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        results = pools(2).run(
            "failing.fill_up", directory=str(disk / "run"), filler=str(disk / "filler")
        )
        assert_all([r["bad"] for r in results], "StorageFullError", "no space left")
        assert results[0]["listed"] == [f"{disk}/run/ckpt-1"]
        assert {r["again"]["path"] for r in results} == {f"{disk}/run/ckpt-3"}
        assert_no_attempt_left(disk / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_directory_that_is_a_file_is_refused_on_all(pools, tmp_path):
    path = tmp_path / "file"
    path.write_text("not a directory")
    results = pools(2).run("failing.save_caught", directory=str(path))
    assert_all(results, "DirectoryError", "is a file", str(path))
    assert path.read_text() == "not a directory"
