"""gc, pin, unpin, import: what they do, and that they never race a job."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest
import tensorflow as tf

import distckpt
from distckpt.directory.catalog import Catalog
from distckpt.errors import SupersededError
from distckpt.maintenance.exclusive_access import ExclusiveAccess
from distckpt.ownership import owner_record
from distckpt.storage.local import LocalStorage

from ..kit import warm
from .conftest import SCRIPT, VALUES, content, flip, names, owned_by

CHANGING = [
    ("gc",),
    ("prune", "--max-to-keep", "1", "--keep", "LastVerified()", "--yes", "--force"),
    ("import",),
    ("rollback", "ckpt-4", "--yes"),
]


def make_work(run):
    """Leaves something to do for each of the commands; returns what `import` takes."""
    (run / "ckpt-9.pending-00000001-000009-ab").mkdir()
    (run / "ckpt-9.pending-00000001-000009-ab" / "probe").write_text("x")
    for file in run.glob("ckpt-3.*"):
        if not file.name.endswith(".json"):
            shutil.copy(file, run / file.name.replace("ckpt-3", "old-3"))
    return run / "old-3"


def arguments(command, run, plain):
    return [command[0], str(plain if command[0] == "import" else run), *command[1:]]


# --- A job that may be running


@pytest.mark.parametrize("command", CHANGING)
def test_a_job_that_has_restored_goes_on_unless_another_checkpoint_may_be_the_newest(
    shell, run, command
):
    """It has not saved yet, so no command can see it."""
    plain = make_work(run)
    step, values = tf.Variable(0, dtype=tf.int64), tf.Variable(tf.zeros(VALUES))
    checkpoint = tf.train.Checkpoint(step=step, values=values)
    manager = distckpt.CheckpointManager(checkpoint, run, 9)
    assert manager.restore_or_initialize() == str(run / "ckpt-5")
    shell(*arguments(command, run, plain))
    if command[0] in ("gc", "prune"):
        assert manager.save() == str(run / "ckpt-6")
    else:
        text = r"taken over by a distckpt command on .* since this job restored from it at"
        with pytest.raises(SupersededError, match=text):
            manager.save()


@pytest.mark.parametrize("command", CHANGING)
def test_a_job_on_another_host_that_has_not_said_that_it_ended(shell, run, command):
    plain = make_work(run)
    owned_by(run)
    before = content(run)
    text = shell(*arguments(command, run, plain), code=2)
    assert "A job may be saving to" in text
    assert "elsewhere (pid 1, term 1) at 1970-01-01" in text
    assert "--take-over" in text
    assert content(run) == before
    shell(*arguments(command, run, plain), "--take-over")
    assert content(run) != before


@pytest.mark.parametrize("command", CHANGING)
def test_a_job_on_this_host_is_looked_for(shell, run, command):
    plain = make_work(run)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as job:
        who = {"host": socket.gethostname(), "pid": job.pid, "since": 4e9}
        path = run / ".distckpt" / "terms" / "00000001.json"
        path.write_text(json.dumps(who))
        assert "A job may be saving to" in shell(*arguments(command, run, plain), code=2)
        job.communicate(b"\n")
    shell(*arguments(command, run, plain))


def test_a_job_that_has_ended_without_being_waited_for_is_not_running(shell, run):
    """A zombie, as in a container whose first process waits for nobody."""
    make_work(run)
    with subprocess.Popen(["true"]) as job:
        os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOWAIT)
        who = {"host": socket.gethostname(), "pid": job.pid, "since": 4e9}
        (run / ".distckpt" / "terms" / "00000001.json").write_text(json.dumps(who))
        shell("gc", run)


def test_another_process_of_the_same_number_is_not_the_job(shell, run):
    make_work(run)
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": 1.0}
    (run / ".distckpt" / "terms" / "00000001.json").write_text(json.dumps(who))
    shell("gc", run)


def test_a_manager_says_at_its_end_that_it_has_ended(tmp_path):
    program = tmp_path / "program.py"
    text = (
        "import tensorflow as tf, distckpt\n"
        "c = tf.train.Checkpoint(v=tf.Variable(1.0))\n"
        f"distckpt.CheckpointManager(c, {str(tmp_path / 'run')!r}, 3).save()\n"
    )
    program.write_text(text)
    done = warm.run([program], env=os.environ, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    found = owner_record.find(LocalStorage(), str(tmp_path / "run"))
    assert found.ended is not None
    assert not found.may_run
    program.write_text(text + "import os; os.kill(os.getpid(), 9)")
    assert warm.run([program], env=os.environ, cwd=tmp_path, timeout=300).returncode == -9
    found = owner_record.find(LocalStorage(), str(tmp_path / "run"))
    assert (found.term, found.ended) == (2, None)
    assert not found.may_run  # it was here, and is gone


def test_a_job_that_is_started_meanwhile_wins(run):
    """The one who takes the term is the only one; the other changes nothing."""
    step = tf.Variable(0, dtype=tf.int64)
    storage = LocalStorage()
    with ExclusiveAccess(storage, str(run)) as access:
        manager = distckpt.CheckpointManager(tf.train.Checkpoint(step=step), run, 9)
        manager.save(9)
        with pytest.raises(distckpt.errors.SupersededError):
            access.clean_up(1.0)
    assert not (run / ".distckpt/terms/00000002.json").exists()
    manager.save(10)


def test_a_job_that_was_taken_over_stops_at_its_next_save(shell, run, tmp_path):
    step = tf.Variable(0, dtype=tf.int64)
    manager = distckpt.CheckpointManager(tf.train.Checkpoint(step=step), tmp_path / "mine", 9)
    manager.save()
    stale = tmp_path / "mine" / "ckpt-9.pending-00000001-000001-ab"
    stale.mkdir()
    assert "A job may be saving" in shell("gc", tmp_path / "mine", code=2)
    shell("gc", tmp_path / "mine", "--take-over")
    with pytest.raises(
        distckpt.errors.SupersededError, match=r"a distckpt command on .*Restart this job"
    ):
        manager.save()


# --- gc


def test_gc_removes_what_is_left_over_and_no_checkpoint(shell, run):
    checkpoints = {k: v for k, v in content(run).items() if k.startswith("ckpt-")}
    private = run / ".distckpt"
    (run / "ckpt-9.pending-00000001-000009-ab").mkdir()
    (run / "ckpt-9.pending-00000001-000009-ab" / "shard-00000-of-00001.index").write_text("xyz")
    (run / ".ckpt-9.index.0123.tmp").write_text("x")
    (run / ".distckpt-doctor-ab").mkdir()
    (private / "holds").mkdir(exist_ok=True)
    (private / "holds" / "ckpt-1.pin.json").write_text("{}")
    (private / "holds" / "ckpt-3.lease-ab.json").write_text("{}")
    (private / "quarantine").mkdir()
    note = {"name": "ckpt-1", "index_crc32c": 5, "reason": "x"}
    (private / "quarantine" / "ckpt-1.json").write_text(json.dumps(note))
    (run / "model.data-00000-of-00002").write_text("not ours")
    shown = shell.json("gc", run, "--dry-run")
    assert len(shown["removed"]) == 6
    assert [one["name"] for one in shown["left"]] == ["model.data-00000-of-00002"]
    text = shell("gc", run)
    assert "of an unfinished save of ckpt-9" in text
    assert "a lease on ckpt-3 that has expired" in text
    assert "not distckpt's to remove" in text
    left = {k: v for k, v in content(run).items() if k.startswith("ckpt-")}
    assert left == checkpoints
    assert sorted(content(run).keys() - left.keys()) == [
        ".distckpt/terms/00000002.json",
        "checkpoint",
        "model.data-00000-of-00002",
    ]
    assert not (run / ".distckpt-doctor-ab").exists()
    assert "Nothing else is left over" in shell("gc", run)


def test_gc_finishes_a_deletion_that_has_begun(shell, run):
    folder = run / "ckpt-3.pending-00000001-000009-ab"
    folder.mkdir()
    (run / "ckpt-3.manifest.json").rename(folder / "tombstone.json")
    shell("gc", run)
    assert names(run) == ["ckpt-2", "ckpt-4", "ckpt-5"]


def test_prune_after_a_chief_that_died_before_it_wrote_the_file_checkpoint(shell, run):
    """The file names an older checkpoint than the newest; it may be deleted all the same."""
    pointer = run / "checkpoint"
    lines = pointer.read_text().splitlines(keepends=True)
    times = [line for line in lines if line.startswith("all_model_checkpoint_timestamps")]
    kept = [line for line in lines if "ckpt-5" not in line and line != times[-1]]
    pointer.write_text("".join(['model_checkpoint_path: "ckpt-4"\n', *kept]))
    shell("prune", run, "--max-to-keep", "1", "--yes", "--force")
    assert names(run) == ["ckpt-5"]
    assert 'model_checkpoint_path: "ckpt-5"' in pointer.read_text()
    assert not list(run.glob("*.pending-*"))


def test_a_dry_run_changes_nothing(shell, run):
    plain = make_work(run)
    before = content(run)
    assert "would be removed" in shell("gc", run, "--dry-run")
    assert "would be deleted" in shell("prune", run, "--max-to-keep", "1", "--dry-run")
    assert content(run) == before
    assert plain.name in names(run)


# --- pin


def test_pin_and_unpin(shell, run):
    assert shell("pin", run / "ckpt-3", "--reason", "for the paper").endswith("is pinned.\n")
    assert "was already pinned" in shell("pin", run / "ckpt-3.index")
    assert "pinned (for the paper)" in shell("ls", run, "--why")
    assert "is not pinned. Did you mean ckpt-3?" in shell("unpin", run / "ckpt-33", code=2)
    assert "is no longer pinned" in shell("unpin", run / "ckpt-3")
    assert "is not pinned" in shell("unpin", run / "ckpt-3", code=2)
    assert "There is no checkpoint 'ckpt-1'" in shell("pin", run / "ckpt-1", code=2)


def test_unpin_says_what_is_pinned(shell, run):
    assert f"Nothing is pinned in {run}." in shell("unpin", run / "ckpt-3", code=2)
    shell("pin", run / "ckpt-3")
    with distckpt.Reader(run) as reader:
        reader.open("ckpt-4")  # a lease is no pin
        assert "is not pinned. Did you mean ckpt-3?" in shell("unpin", run / "ckpt-4", code=2)
    assert "is not pinned. Pinned: ckpt-3." in shell("unpin", run / "best", code=2)
    assert f"is not pinned. Pinned: {run / 'ckpt-3'}." in shell("unpin", run, code=2)


def test_a_pin_needs_no_end_of_the_job_and_does_not_stop_it(shell, tmp_path):
    step = tf.Variable(0, dtype=tf.int64)
    manager = distckpt.CheckpointManager(tf.train.Checkpoint(step=step), tmp_path / "run", 1)
    path = manager.save()
    shell("pin", tmp_path / "run")
    manager.save()
    assert manager.checkpoints[0] == path
    shell("unpin", path)
    manager.save()
    assert len(manager.checkpoints) == 1


# --- import


def test_a_plain_checkpoint_becomes_a_committed_one(shell, run):
    plain = make_work(run)
    before = {k: v for k, v in content(run).items() if k.startswith("old-3")}
    assert "is now committed: step 3, 4 tensors" in shell("import", plain)
    after = {k: v for k, v in content(run).items() if k.startswith("old-3")}
    assert after.keys() - before.keys() == {"old-3.manifest.json"}
    assert all(after[k] == v for k, v in before.items())
    shell("verify", plain)
    manifest = Catalog(LocalStorage(), str(run)).manifest("old-3")
    assert (manifest.order, manifest.step) == ((0, 3), 3)
    found = {c["name"]: c for c in shell.json("ls", run)["checkpoints"]}
    assert found["old-3"]["state"] == "committed"
    assert found["ckpt-5"]["newest"]
    assert "already has a manifest" in shell("import", plain, code=2)


def test_the_step_can_be_said(shell, run):
    plain = make_work(run)
    shell("import", plain, "--step", "77")
    assert Catalog(LocalStorage(), str(run)).manifest("old-3").step == 77


def test_it_warns_if_an_older_one_becomes_the_newest(shell, run):
    """A copy without TensorFlow's file and without manifests: only what is imported counts."""
    for file in [run / "checkpoint", *run.glob("*.manifest.json")]:
        file.unlink()
    done = shell.run("import", run / "ckpt-3")
    assert "is now committed: step 3" in done.stdout
    assert done.stderr == (
        "Warning: A restore now takes ckpt-3 first, although its step 3 is below step 5 of ckpt-5. "
        f"To change that: distckpt import {run / 'ckpt-5'}\n"
    )
    assert shell.json("ls", run)["checkpoints"][1]["newest"]
    done = shell.run("import", run / "ckpt-5")
    assert (done.returncode, done.stderr) == (0, "")
    assert shell.json("ls", run)["checkpoints"][-1]["newest"]
    found = shell.json("import", run / "ckpt-4", "--step", "60")
    assert not found["newest"]
    done = shell.run("rollback", run, "ckpt-4", "--yes")
    assert done.returncode == 0


def test_a_damaged_one_is_not_imported(shell, run):
    plain = make_work(run)
    flip(f"{plain}.data-00000-of-00001", 5000)
    before = content(run)
    assert "is damaged" in shell("import", plain, code=1)
    assert content(run) == before


def test_a_directory_of_plain_tensorflow_is_imported_and_goes_on(shell, tmp_path):
    v = tf.Variable(1.0)
    plain = tf.train.CheckpointManager(tf.train.Checkpoint(v=v), str(tmp_path / "run"), 3)
    for _ in range(3):
        plain.save()
    for number in (1, 2, 3):
        shell("import", tmp_path / "run" / f"ckpt-{number}")
    checkpoint = tf.train.Checkpoint(v=v)
    manager = distckpt.CheckpointManager(checkpoint, tmp_path / "run", 3)
    assert manager.restore_or_initialize() == str(tmp_path / "run" / "ckpt-3")
    manager.save()
    assert names(tmp_path / "run") == ["ckpt-2", "ckpt-3", "ckpt-4"]


def test_a_death_in_the_middle_of_an_import_leaves_the_plain_checkpoint(shell, run):
    """What is half done is taken back by whoever comes next; the files are the user's."""
    plain = make_work(run)
    before = {k: v for k, v in content(run).items() if k.startswith("old-3")}
    shell("import", plain)
    folder = run / "old-3.pending-00000002-000001-ab"
    folder.mkdir()
    (run / "old-3.manifest.json").rename(folder / "imported.json")
    owned_by(run, term=2, ended=2.0)
    shell("gc", run)
    assert {k: v for k, v in content(run).items() if k.startswith("old-3")} == before
    shell("verify", plain)


# --- Ctrl-C


def test_ctrl_c_while_it_asks_changes_nothing(run):
    before = content(run)
    with subprocess.Popen(
        ["script", "-qec", f"{SCRIPT} prune {run} --max-to-keep 1", "/dev/null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        seen = ""
        while "[y/N]" not in seen:
            seen += process.stdout.read(1)
        process.communicate("\x03", timeout=300)
    assert content(run) == before


def test_whatever_ends_a_command_it_gives_the_directory_back(run):
    with pytest.raises(KeyboardInterrupt), ExclusiveAccess(LocalStorage(), str(run)):
        raise KeyboardInterrupt
    assert not owner_record.find(LocalStorage(), str(run)).may_run
    assert pathlib.Path(run / ".distckpt" / "terms" / "00000002.json").exists()
