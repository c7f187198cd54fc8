from __future__ import annotations

import signal
import subprocess

import pytest
import tensorflow as tf

import distckpt
from distckpt.cli.commands.watch import Watcher
from distckpt.inspection import save_watch
from distckpt.storage.local import LocalStorage

from .conftest import SCRIPT, content, owned_by


@pytest.fixture
def watch(run):
    with subprocess.Popen(
        [SCRIPT, "watch", str(run), "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_it_tells_what_comes_and_goes_and_ends_with_ctrl_c(watch, run):
    assert "4 checkpoints, the newest: ckpt-5" in watch.stdout.readline()
    owned_by(run)
    folder = run / "ckpt-6.pending-00000001-000009-ab"
    folder.mkdir()
    (folder / "probe").write_text("token")
    assert "ckpt-6: a save has begun" in watch.stdout.readline()
    (folder / "probe").unlink()
    folder.rmdir()
    step = tf.Variable(60, dtype=tf.int64)
    manager = distckpt.CheckpointManager(tf.train.Checkpoint(step=step), run, 4, step_counter=step)
    manager.save(6, metrics={"loss": 0.25})
    lines = []
    while not any("deleted" in line for line in lines):
        lines.append(watch.stdout.readline())
    text = "".join(lines)
    assert "ckpt-6: committed, step 60" in text
    assert "by 1 worker in" in text
    assert "loss 0.25" in text
    assert "ckpt-2: deleted" in text
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=300)
    assert watch.returncode == 0
    assert err == ""


def test_what_a_dead_job_has_left_over_is_no_save_that_has_begun(watch, run):
    assert "4 checkpoints" in watch.stdout.readline()
    folder = run / "ckpt-6.pending-00000001-000009-ab"
    folder.mkdir()
    (folder / "probe").write_text("token")
    assert "ckpt-6: left over by a job that has ended" in watch.stdout.readline()


def test_it_ends_by_itself_and_changes_nothing(shell, run):
    before = content(run)
    assert len(shell("watch", run, "--for", "0.2", "--interval", "0.1").splitlines()) == 1
    assert content(run) == before
    assert "does not exist" in shell("watch", run / "nowhere", code=2)


def test_the_phases_of_the_workers_are_told_from_their_files(run):
    folder = run / "ckpt-6.pending-00000001-000009-ab"
    folder.mkdir()

    def look():
        (save,) = save_watch.look(LocalStorage(), str(run))
        return save.phase, [(w.worker, w.phase, w.bytes) for w in save.workers]

    (folder / "probe").write_text("token")
    assert look() == ("opened", [])
    (folder / "shard-00001-of-00003.data-00000-of-00001").write_text("12345")
    assert look() == ("writing", [(0, "opened", 0), (1, "writing", 5), (2, "opened", 0)])
    (folder / "shard-00001-of-00003.index").write_text("12")
    assert look()[1][1] == (1, "written", 7)
    (folder / "ckpt-6.index").write_text("")
    assert look()[0] == "merged"
    (folder / "manifest.json").write_text("")
    assert look()[0] == "committing"
    (folder / "tombstone.json").write_text("")
    assert look()[0] == "deleting"


@pytest.mark.parametrize(
    "files",
    [{}, {"probe": ""}, {"ckpt-4.index": "x"}],
    ids=["new", "of gc or rollback", "a deletion that is nearly done"],
)
def test_a_folder_that_is_no_save_is_left_out(run, files):
    folder = run / "ckpt-4.pending-00000001-000009-ab"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    assert save_watch.look(LocalStorage(), str(run)) == []


def test_a_name_that_claims_too_many_workers_is_not_believed(run):
    folder = run / "ckpt-6.pending-00000001-000009-ab"
    folder.mkdir()
    (folder / "probe").write_text("token")
    (folder / "shard-00000-of-999999999999").write_text("x")
    (save,) = save_watch.look(LocalStorage(), str(run))
    assert save.workers == ()


def test_a_checkpoint_that_becomes_damaged_is_an_event(run):
    watcher = Watcher(LocalStorage(), str(run))
    (first,) = watcher.news()
    assert first.event == "found"
    (run / "ckpt-4.index").unlink()
    (change,) = watcher.news()
    assert (change.event, change.to_json()["checkpoint"]["name"]) == ("damaged", "ckpt-4")
    assert str(change).endswith("ckpt-4: damaged. ckpt-4.index is missing.")
    for file in run.glob("ckpt-4.*"):
        file.unlink()
    assert [change.event for change in watcher.news()] == ["deleted"]
