"""Damaged checkpoints: all workers of a real job fall back together, and nothing wrong is read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from . import damage
from .cluster import Cluster, check_restart, read_log
from .worker import Job


def test_no_flipped_bit_is_restored(tmp_path):
    files = damage.make(tmp_path / "run")
    found = damage.count_all(files, 400, seed=1)
    assert {outcome for counter in found.values() for outcome in counter} <= {
        damage.NEW,
        damage.LAST,
    }
    assert found["data"] == {damage.LAST: sum(found["data"].values())}
    assert found["index"] == {damage.LAST: sum(found["index"].values())}
    assert found["checkpoint"][damage.LAST] == 0  # the manifests make up for it


# --- Damage by real processes' hands ------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def delete(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def come_from_another_directory(path: Path) -> None:
    """The manifest is that of another run's checkpoint of the same name, of three workers."""
    (other,) = (path.parent.parent / "other").glob(path.name)
    shutil.copy(other, path)


def become_a_link(path: Path) -> None:
    outside = path.parent.parent / f"outside-{path.name}"
    shutil.move(path, outside)
    path.symlink_to(outside)


NEWEST, BEFORE = 3, 2
DATA, INDEX, MANIFEST, POINTER = "*.data-00001-*", "*.index", "*.manifest.json", "checkpoint"
OWN, OWN_INDEX = "*.worker-00001-of-00002.data-*", "*.worker-00001-of-00002.index"
# What is done to which file, and which step is restored then.
DAMAGES = [
    (flip, DATA, BEFORE),
    (truncate, DATA, BEFORE),
    (delete, DATA, BEFORE),
    (become_a_folder, DATA, BEFORE),
    (become_a_link, DATA, NEWEST),
    (flip, INDEX, BEFORE),
    (truncate, INDEX, BEFORE),
    (delete, INDEX, BEFORE),
    (become_a_folder, INDEX, BEFORE),
    (become_a_link, INDEX, NEWEST),
    (flip, OWN, BEFORE),
    (truncate, OWN, BEFORE),
    (delete, OWN, BEFORE),
    (flip, OWN_INDEX, BEFORE),
    (delete, OWN_INDEX, BEFORE),
    (become_a_link, OWN_INDEX, NEWEST),
    (flip, MANIFEST, None),  # if it can still be read, what it says must be so
    (truncate, MANIFEST, BEFORE),
    (delete, MANIFEST, NEWEST),  # a plain checkpoint of TensorFlow's, and whole
    (become_a_folder, MANIFEST, BEFORE),
    (come_from_another_directory, MANIFEST, NEWEST),  # so it says nothing about this checkpoint
    (become_a_link, MANIFEST, NEWEST),
    (flip, POINTER, NEWEST),
    (truncate, POINTER, NEWEST),
    (delete, POINTER, NEWEST),
    (become_a_folder, POINTER, NEWEST),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Directories that jobs of two and of three workers have saved steps 1 to 3 to, keeping two."""
    folder = tmp_path_factory.mktemp("sound")
    for name, workers in (("run", 2), ("other", 3)):
        board = str(folder / f"board-{name}")
        job = Job(str(folder / name), board, "first", workers, NEWEST, False)
        with Cluster(job) as cluster:
            cluster.wait(list(range(workers)))
            assert [p.exitcode for p in cluster.processes] == [0] * workers, cluster.logs()
    return folder


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("how", "what", "step"), DAMAGES, ids=[f"{how.__name__}-{what}" for how, what, _ in DAMAGES]
)
def test_all_workers_restore_the_newest_that_is_whole(sound, tmp_path, how, what, step):
    for name in ("run", "other"):
        shutil.copytree(sound / name, tmp_path / name)
    pattern = what if what == POINTER else f"ckpt-{NEWEST}{what[1:]}"
    (path,) = (tmp_path / "run").glob(pattern)
    how(path)
    # Without its manifest nothing tells whether a worker's state belongs to a checkpoint.
    is_plain = what == MANIFEST and how in (delete, come_from_another_directory)
    paths = str(tmp_path / "run"), str(tmp_path / "board")
    job = Job(*paths, "again", 2, NEWEST + 2, False, own=not is_plain)
    if how is become_a_folder:  # nothing of ours, and not ours to remove
        assert restored(job) == step
        return
    found = check_restart(job, BEFORE)
    assert found == step or (step is None and found in (BEFORE, NEWEST))
    if found == BEFORE:
        why = rf"ckpt-{NEWEST} is not usable: .|names ckpt-{NEWEST}, but there is no ckpt"
        assert re.search(why, read_log(job, 0).text)
    outside = list(tmp_path.glob("outside-*"))
    assert len(outside) == (how is become_a_link), "a link's target was deleted"


def restored(job: Job) -> int | None:
    """Returns which step all of a job's workers have restored, bit for bit, whatever follows."""
    with Cluster(job) as cluster:
        cluster.wait(list(range(job.workers)))
        logs = cluster.logs()
    assert all(log.equal for log in logs)
    (step,) = {log.restored for log in logs}
    return step
