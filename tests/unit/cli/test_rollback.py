"""rollback: going back to an older checkpoint, by the command."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

import pytest
import tensorflow as tf
from google_crc32c import value

import distckpt
from distckpt.core.pins_and_leases import Pin, render
from distckpt.errors import SupersededError

from .conftest import SCRIPT, VALUES, content, flip, names, owned_by


def set_aside(run):
    (folder,) = pathlib.Path(run).glob("set-aside-*")
    return folder


def state():
    step, values = tf.Variable(0, dtype=tf.int64), tf.Variable(tf.zeros(VALUES))
    return tf.train.Checkpoint(step=step, values=values)


def test_the_next_job_goes_on_from_it(shell, run):
    text = shell("rollback", run, "ckpt-3", "--yes")
    assert "set aside  ckpt-5        50" in text
    assert "ckpt-3 is the newest now." in text
    assert names(run) == ["ckpt-2", "ckpt-3"]
    assert names(set_aside(run)) == ["ckpt-4", "ckpt-5"]
    assert tf.train.latest_checkpoint(str(run)) == str(run / "ckpt-3")
    assert tf.train.latest_checkpoint(set_aside(run)) == str(set_aside(run) / "ckpt-5")
    found = state()
    manager = distckpt.CheckpointManager(found, run, 9)
    assert manager.restore_or_initialize() == str(run / "ckpt-3")
    assert int(found.step) == 30
    assert manager.save() == str(run / "ckpt-4")
    assert "Nothing is left over" in shell("gc", run, "--take-over")


def test_what_was_set_aside_is_a_directory_of_its_own(shell, run):
    shell("rollback", run, "ckpt-3", "--yes")
    shell("verify", set_aside(run), "--all")
    found = state()
    manager = distckpt.CheckpointManager(found, set_aside(run), 9)
    assert manager.restore_or_initialize() == str(set_aside(run) / "ckpt-5")
    assert int(found.step) == 50


def test_the_command_that_is_printed_undoes_it(shell, run):
    before = content(run)
    text = shell("rollback", run, "ckpt-3", "--yes")
    subprocess.run(["sh", "-c", text.splitlines()[-1]], check=True)
    after = content(run)
    assert after.keys() - before.keys() == {".distckpt/terms/00000002.json"}
    assert [f for f in before if f.startswith("ckpt-") and after[f] != before[f]] == []
    assert [c["name"] for c in shell.json("ls", run)["checkpoints"] if c["newest"]] == ["ckpt-5"]
    assert tf.train.latest_checkpoint(str(run)) == str(run / "ckpt-5")


def test_delete(shell, run):
    assert "Later checkpoints are deleted." in shell("rollback", run, "ckpt-3", "--delete", "--yes")
    assert {f for f in content(run) if not f.startswith(".distckpt/")} == {
        "checkpoint",
        *(f"ckpt-{n}.{end}" for n in (2, 3) for end in ("index", "manifest.json")),
        *(f"ckpt-{n}.data-00000-of-00001" for n in (2, 3)),
    }


def test_a_dry_run_changes_nothing(shell, run):
    before = content(run)
    text = shell("rollback", run, "ckpt-4", "--dry-run")
    assert "would be set aside  ckpt-5" in text
    assert "would be deleted" in shell("rollback", run, "ckpt-4", "--dry-run", "--delete")
    assert "is already the newest" in shell("rollback", run, "ckpt-5", "--yes")
    assert content(run) == before


def test_it_asks(shell, run):
    assert "give --yes or --dry-run" in shell("rollback", run, "ckpt-4", code=2)
    command = ["script", "-qec", f"{SCRIPT} rollback {run} ckpt-3", "/dev/null"]
    done = subprocess.run(command, input="n\n", capture_output=True, text=True, timeout=300)
    assert "Go back to ckpt-3 and set aside 2 later checkpoints" in done.stdout
    assert len(names(run)) == 4


@pytest.mark.parametrize("name", ["ckpt-4", "ckpt-4.index", "{run}/ckpt-4"])
def test_a_name_may_be_a_path(shell, run, name):
    shell("rollback", run, name.format(run=run), "--yes")
    assert names(run) == ["ckpt-2", "ckpt-3", "ckpt-4"]


def test_what_cannot_be_gone_back_to(shell, run):
    before = content(run)
    assert "Did you mean ckpt-" in shell("rollback", run, "ckpt-33", "--yes", code=2)
    assert "does not exist" in shell("rollback", run / "nowhere", "ckpt-3", code=2)
    flip(run / "ckpt-3.data-00000-of-00001", 5000)
    text = shell("rollback", run, "ckpt-3", "--yes", code=1)
    assert "'values/.ATTRIBUTES/VARIABLE_VALUE'" in text
    assert "Nothing was changed." in text
    flip(run / "ckpt-3.data-00000-of-00001", 5000)
    assert content(run) == before


def test_what_is_pinned_or_being_read_is_not_set_aside(shell, run):
    shell("pin", run / "ckpt-5", "--reason", "submitted")
    before = content(run)
    text = shell("rollback", run, "ckpt-3", "--yes", code=2)
    assert "ckpt-5 came after ckpt-3, and is pinned (submitted)" in text
    assert content(run) == before
    shell("unpin", run / "ckpt-5")
    with distckpt.Reader(run) as reader:
        reader.open("ckpt-4")
        assert "ckpt-4 came after ckpt-3, and is being" in shell(
            "rollback", run, "ckpt-3", "--yes", code=2
        )
    shell("rollback", run, "ckpt-3", "--yes")


def test_not_while_a_job_may_be_running(shell, run):
    owned_by(run)
    before = content(run)
    assert "A job may be saving to" in shell("rollback", run, "ckpt-3", "--yes", code=2)
    assert content(run) == before
    shell("rollback", run, "ckpt-3", "--yes", "--take-over")
    assert names(run) == ["ckpt-2", "ckpt-3"]


def test_one_that_was_interrupted_is_shown_and_finished_by_the_next(shell, run):
    shell("rollback", run, "ckpt-3", "--yes")
    interrupt(run)
    found = {c["name"]: c for c in shell.json("ls", run)["checkpoints"]}
    assert "it is being set aside by a rollback to ckpt-3" in found["ckpt-4"]["problem"]
    assert found["ckpt-3"]["newest"]
    assert "of an unfinished rollback" in shell("gc", run, "--dry-run")
    text = shell("rollback", run, "ckpt-3")
    assert "ckpt-3 is the newest now" in text
    assert names(run) == ["ckpt-2", "ckpt-3"]
    assert names(set_aside(run)) == ["ckpt-4", "ckpt-5"]


def test_gc_finishes_one_that_was_interrupted(shell, run):
    shell("rollback", run, "ckpt-3", "--yes")
    interrupt(run)
    assert "of an unfinished rollback to ckpt-3: sets aside ckpt-5, ckpt-4" in shell(
        "gc", run, "--dry-run"
    )
    text = shell("gc", run)
    assert names(run) == ["ckpt-2", "ckpt-3"]
    assert names(set_aside(run)) == ["ckpt-4", "ckpt-5"]
    moved = f"ckpt-5, ckpt-4 moved to {set_aside(run)}."
    assert f"Finished an interrupted rollback to ckpt-3: {moved}" in text
    assert f"mv {set_aside(run)}/* {run}/ && rmdir {set_aside(run)}" in text
    assert "Nothing is left over" in shell("gc", run)


@pytest.mark.parametrize("command", ["prune", "import", "gc --json"])
def test_any_other_command_that_finishes_one_says_so(shell, run, command):
    shell("rollback", run, "ckpt-3", "--yes")
    interrupt(run)
    if command == "prune":
        text = shell("prune", run, "--max-to-keep", "1", "--yes")
    elif command == "import":
        (run / "ckpt-2.manifest.json").unlink()
        text = shell("import", run / "ckpt-2")
    else:
        assert shell.json("gc", run)["finished"] == {
            "newest": "ckpt-3",
            "checkpoints": ["ckpt-5", "ckpt-4"],
            "folder": str(set_aside(run)),
        }
        return
    assert "Finished an interrupted rollback to ckpt-3: ckpt-5, ckpt-4 moved to" in text


# --- Pins


def test_what_an_unfinished_rollback_moves_cannot_be_pinned_before_it_is_finished(shell, run):
    shell("rollback", run, "ckpt-3", "--yes")
    interrupt(run)
    before = content(run)
    text = shell("pin", run / "ckpt-4", code=2)
    assert "ckpt-4 in" in text
    assert "it is being set aside by a rollback to ckpt-3, which is unfinished" in text
    assert content(run) == before
    shell("pin", run / "ckpt-3")
    shell("gc", run)
    shell("pin", set_aside(run) / "ckpt-4")


def test_a_pin_that_came_just_before_a_rollback_survives_it(shell, run):
    """The command looks for pins before it begins, and not again."""
    shell("rollback", run, "ckpt-3", "--yes")
    folder = set_aside(run)
    pin = run / ".distckpt" / "holds" / "ckpt-4.pin.json"
    pin.parent.mkdir(exist_ok=True)
    pin.write_bytes(render(Pin("ckpt-4", "me@here", 1.0, "submitted")))
    interrupt(run)
    text = shell("rollback", run, "ckpt-3", "--delete", code=2)
    assert f"ckpt-4 is pinned (submitted), so nothing was deleted; it is in {folder}." in text
    assert "Nothing is left over" in shell("gc", run)
    assert pin.exists()
    for file in folder.glob("ckpt-4.*"):
        file.rename(run / file.name)
    assert "pinned (submitted)" in shell("ls", run, "--why")


# --- ls


def test_ls_names_what_was_set_aside_and_how_to_bring_one_back(shell, run):
    shell("rollback", run, "ckpt-3", "--yes")
    folder = set_aside(run)
    found = shell.json("ls", run)["set_aside"]
    assert found == [{"folder": str(folder), "checkpoints": ["ckpt-4", "ckpt-5"]}]
    (line,) = [t for t in shell("ls", run).splitlines() if "Set aside" in t]
    assert line.startswith(f"Set aside by a rollback, in {folder}: ckpt-4, ckpt-5. To bring back ")
    subprocess.run(["sh", "-c", line.partition("ckpt-5: ")[2]], check=True)
    shell("verify", run / "ckpt-5")
    assert names(run) == ["ckpt-2", "ckpt-3", "ckpt-5"]
    assert "To bring back ckpt-4: mv " in shell("ls", run)
    for file in folder.glob("ckpt-4.*"):
        shutil.copy(file, run)
    assert "Others of these names were saved since: restore them from there." in shell("ls", run)


def interrupt(run):
    """Makes of a rollback that is done one that has only begun with ckpt-4."""

    folder = set_aside(run)
    leaving = [
        {"name": name, "index_crc32c": value((folder / f"{name}.index").read_bytes())}
        for name in ("ckpt-5", "ckpt-4")
    ]
    pointer = (run / "checkpoint").read_text()
    what = {
        "to": "ckpt-3",
        "folder": folder.name,
        "leaving": leaving,
        "found": value(b"what it was"),
        "pointer": pointer,
        "before": (folder / "checkpoint").read_text(),
    }
    private = run / ".distckpt"
    (private / "rollback.json").write_text(json.dumps(what))
    folder.rename(private / "set_aside" / "00000002")
    for end in ("index", "data-00000-of-00001"):
        file = f"ckpt-4.{end}"
        (private / "set_aside" / "00000002" / file).rename(run / file)


def test_a_job_that_had_restored_what_is_set_aside_does_not_bring_it_back(shell, run):
    """It has not saved yet, so the command cannot see it."""
    found = state()
    manager = distckpt.CheckpointManager(found, run, 9)
    assert manager.restore_or_initialize() == str(run / "ckpt-5")
    shell("rollback", run, "ckpt-3", "--yes")
    for _ in range(2):
        with pytest.raises(SupersededError, match="since this job restored from it at"):
            manager.save()
    assert names(run) == ["ckpt-2", "ckpt-3"]
    assert manager.restore_or_initialize() == str(run / "ckpt-3")
    found.step.assign(31)
    manager.save()
    assert names(run)[:2] == ["ckpt-2", "ckpt-3"]
    assert len(names(run)) == 3
