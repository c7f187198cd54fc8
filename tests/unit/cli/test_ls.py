from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from distckpt.core.pins_and_leases import Lease, Pin, render

from .conftest import SCRIPT, content, names, owned_by


def row(text, name):
    return next(line for line in text.splitlines() if name in line.split()[:2]).split()


def test_a_line_for_each_checkpoint(shell, run):
    text = shell("ls", run)
    assert text.splitlines()[0].split()[:3] == ["checkpoint", "step", "saved"]
    newest = row(text, "ckpt-5")
    assert newest[:3] == ["*", "ckpt-5", "50"]
    assert newest[-1] == "committed"
    assert row(text, "ckpt-2")[:2] == ["ckpt-2", "20"]
    assert "0.1" in row(text, "ckpt-2")
    assert len(text.splitlines()) == 5


def test_json_says_all(shell, run):
    document = shell.json("ls", run)
    assert document["directory"] == str(run)
    assert [c["name"] for c in document["checkpoints"]] == ["ckpt-2", "ckpt-3", "ckpt-4", "ckpt-5"]
    last = document["checkpoints"][-1]
    assert last["newest"]
    assert last["listed"]
    assert (last["state"], last["step"], last["workers"]) == ("committed", 50, 1)
    assert last["metrics"] == {"loss": 0.2}
    assert last["path"] == str(run / "ckpt-5")
    files = [p for p in run.glob("ckpt-5.*") if not p.name.endswith(".json")]
    assert last["bytes"] == sum(p.stat().st_size for p in files)
    assert document["owner"]["host"] == "elsewhere"


def test_why_explains_the_decision_of_the_job(shell, run):
    text = shell("ls", run, "--why")
    assert text.count("one of the 3 newest") == 3
    assert "number 1 by loss (0.1)" in next(t for t in text.splitlines() if "ckpt-2" in t)
    assert "The job keeps: max_to_keep=3, keep=Best(1, 'loss')" in text


def test_states_are_told_apart(shell, run):
    os.unlink(run / "ckpt-2.index")
    (run / "ckpt-3.manifest.json").write_text("{")
    os.unlink(run / "ckpt-4.manifest.json")
    found = {c["name"]: c for c in shell.json("ls", run, code=1)["checkpoints"]}
    assert {name: c["state"] for name, c in found.items()} == {
        "ckpt-2": "damaged",
        "ckpt-3": "damaged",
        "ckpt-4": "unmanaged",
        "ckpt-5": "committed",
    }
    assert (found["ckpt-2"]["step"], found["ckpt-2"]["metrics"]) == (20, {"loss": 0.1})
    assert found["ckpt-3"]["step"] is None
    text = shell("ls", run, code=1)
    assert text.count("ckpt-2.index is missing") == 1
    assert text.count("not a readable manifest") == 1


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_data_file_of_the_wrong_size_is_damage_and_not_the_newest(shell, run, damage):
    file = run / "ckpt-5.data-00000-of-00001"
    if damage == "cut":
        os.truncate(file, 1000)
        problem = "ckpt-5.data-00000-of-00001 has 1000 bytes instead of 80283."
    else:
        file.unlink()
        problem = "ckpt-5.data-00000-of-00001 is missing"
    found = {c["name"]: c for c in shell.json("ls", run, code=1)["checkpoints"]}
    assert found["ckpt-5"]["state"] == "damaged"
    assert found["ckpt-5"]["problem"].startswith(problem)
    assert (found["ckpt-5"]["step"], found["ckpt-5"]["metrics"]) == (50, {"loss": 0.2})
    assert [name for name, c in found.items() if c["newest"]] == ["ckpt-4"]
    assert row(shell("ls", run, code=1), "ckpt-4")[0] == "*"


def test_an_edited_manifest_is_damaged_and_counts_for_nothing(shell, run):
    """Somebody makes ckpt-3 the best by hand: it is not restored, and ckpt-2 stays."""
    path = run / "ckpt-5.manifest.json"
    path.write_text(path.read_text().replace('"loss": 0.2', '"loss": 0.0'))
    found = {c["name"]: c for c in shell.json("ls", run, "--why", code=1)["checkpoints"]}
    assert found["ckpt-5"]["state"] == "damaged"
    assert "was changed after it was written: its checksum is" in found["ckpt-5"]["problem"]
    assert found["ckpt-5"]["why"].startswith("not counted, and never deleted")
    assert [name for name, one in found.items() if one["newest"]] == ["ckpt-4"]
    assert "number 1 by loss (0.1)" in found["ckpt-2"]["why"]
    before = content(run)
    shell("prune", run, "--max-to-keep", "1", "--keep", "Best(1, 'loss')", "--yes", code=1)
    after = content(run)
    assert names(run) == ["ckpt-2", "ckpt-4", "ckpt-5"]
    assert all(after[file] == before[file] for file in before if file.startswith("ckpt-5"))


def test_pins_and_leases_are_shown_but_not_those_that_ran_out(shell, run):
    folder = run / ".distckpt" / "holds"
    folder.mkdir(exist_ok=True)
    (folder / "ckpt-2.pin.json").write_bytes(render(Pin("ckpt-2", "me@here", 1.0, "for the paper")))
    old = Lease("ckpt-3", "ab", "there", 7, 1.0, 60.0)
    (folder / "ckpt-3.lease-ab.json").write_bytes(render(old))
    found = {c["name"]: c for c in shell.json("ls", run)["checkpoints"]}
    assert found["ckpt-2"]["pinned"]["reason"] == "for the paper"
    assert found["ckpt-3"]["leases"] == []
    assert row(shell("ls", run), "ckpt-2")[-1] == "pinned"
    assert "pinned (for the paper)" in shell("ls", run, "--why")


def test_saves_in_progress_are_told_from_what_is_left_over(shell, run):
    folder = run / "ckpt-6.pending-00000001-000006-ab"
    folder.mkdir()
    (folder / "probe").write_text("x" * 100)
    assert "ckpt-6: a save of term 1, left over" in shell("ls", run)
    owned_by(run)
    assert "ckpt-6: a save of term 1, in progress, 100 B" in shell("ls", run)


def test_it_changes_nothing(shell, run):
    before = content(run)
    shell("ls", run, "--why")
    assert content(run) == before


def test_an_empty_a_foreign_and_no_directory(shell, tmp_path):
    assert "There is no checkpoint" in shell("ls", tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "checkpoint").write_bytes(b"\xff\x00")
    assert "There is no checkpoint" in shell("ls", tmp_path)
    assert "does not exist" in shell("ls", tmp_path / "nowhere", code=2)
    assert "is a file" in shell("ls", tmp_path / "notes.txt", code=2)


def test_directories_with_checkpoints_below_are_named(shell, run):
    (run.parent / "empty").mkdir()
    text = shell("ls", run.parent)
    assert text == f"There is no checkpoint in {run.parent}, but there are some in {run}.\n"
    for command in ("show", "verify"):
        assert f"but there are some in {run}" in shell(command, run.parent, code=2)


def test_a_misspelt_directory_suggests_the_nearest(shell, run):
    text = shell("ls", run.parent / "runn", code=2)
    assert text == f"Error: {run.parent / 'runn'} does not exist. Did you mean run?\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_rights(shell, run):  # pragma: no cover
    run.chmod(0)
    try:
        assert "Permission denied" in shell("ls", run, code=2)
    finally:
        run.chmod(0o755)


def test_tensorflow_is_not_imported(run):
    program = (
        "import sys; from distckpt.cli import main\n"
        f"try: main(['ls', {str(run)!r}])\n"
        "except SystemExit: pass\n"
        "assert 'tensorflow' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_reader_that_goes_ends_it_without_a_word(run, buffered):
    for number in range(6, 400):  # more than a pipe holds
        for file in run.glob("ckpt-5.*"):
            shutil.copy(file, run / file.name.replace("ckpt-5", f"model-{number}"))
        os.unlink(run / f"model-{number}.manifest.json")
    with subprocess.Popen(
        [SCRIPT, "ls", str(run), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=buffered,
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""


def test_colours_only_on_a_terminal_that_has_them(run):
    def on_a_terminal(**environment):
        command = ["script", "-qec", f"{SCRIPT} ls {run}", "/dev/null"]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "COLUMNS": "200", "TERM": "xterm", **environment},
        ).stdout

    assert "\x1b[32mcommitted" in on_a_terminal()
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        text = on_a_terminal(**quiet)
        assert "committed" in text
        assert "\x1b[32m" not in text


def test_a_directory_of_plain_tensorflow(shell, tmp_path):
    import tensorflow as tf

    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path / "plain"), 3
    )
    manager.save()
    manager.save()
    (first, last) = shell.json("ls", tmp_path / "plain")["checkpoints"]
    assert (first["state"], last["state"]) == ("unmanaged", "unmanaged")
    assert (first["newest"], last["newest"]) == (False, True)
    assert last["time"] is not None
    assert pathlib.Path(last["path"] + ".index").exists()


@pytest.mark.parametrize("damage", ["cut", "gone", "index"])
def test_damage_of_a_plain_checkpoint(shell, run, damage):
    for manifest in run.glob("*.manifest.json"):
        manifest.unlink()
    assert shell.json("ls", run)["checkpoints"][-1]["newest"]
    file = run / "ckpt-5.data-00000-of-00001"
    if damage == "cut":
        os.truncate(file, 80_282)
        problem = f"{file.name} has 80282 bytes instead of 80283."
    elif damage == "gone":
        file.unlink()
        problem = f"{file.name} is missing."
    else:
        (run / "ckpt-5.index").write_text("no index")
        problem = f"{run / 'ckpt-5.index'}: "
    found = shell.json("ls", run, code=1)["checkpoints"]
    assert [one["state"] for one in found] == ["unmanaged"] * 3 + ["damaged"]
    assert found[-1]["problem"].startswith(problem)
    assert found[-2]["newest"]


def test_what_tensorflow_has_deleted_is_shown_as_deleted(shell, run):
    """TensorFlow's own manager takes its turn, and keeps one checkpoint."""
    import tensorflow as tf

    state = tf.train.Checkpoint(v=tf.Variable(1.0))
    manager = tf.train.CheckpointManager(state, str(run), 1)
    manager.save(7)
    manager.save(8)
    found = shell.json("ls", run)["checkpoints"]
    assert [one["state"] for one in found] == ["deleted"] * 4 + ["unmanaged"]
    text = shell("ls", run, "--why")
    why = "Deleted by TensorFlow's manager; only the manifest is left."
    assert f"ckpt-2, ckpt-3, ckpt-4, ckpt-5: {why}" in text
    assert shell("show", run).startswith(f"{run / 'ckpt-8'}: a plain TensorFlow checkpoint")
    assert "1 checkpoint: all good." in shell("verify", run, "--all")
    assert "was deleted by TensorFlow's manager" in shell("show", run / "ckpt-5", code=2)
    text = (run / "checkpoint").read_text()
    (run / "checkpoint").write_text(text + 'all_model_checkpoint_paths: "ckpt-5"\n')
    found = shell.json("ls", run, code=1)["checkpoints"]
    assert [one["name"] for one in found if one["state"] == "damaged"] == ["ckpt-5"]


@pytest.mark.parametrize("command", ["ls", "watch", "prune", "gc", "timeline"])
@pytest.mark.parametrize(
    ("name", "what"), [("ckpt-5", "is a checkpoint"), ("ckpt-5.index", "is a file of ckpt-5")]
)
def test_a_checkpoint_in_place_of_a_directory(shell, run, command, name, what):
    """Nobody is told to move the index of a good checkpoint away."""
    said = shell(command, run / name, code=2)
    assert said == f"Error: {run / name} {what}. This command takes the directory: {run}\n"


def test_the_current_directory_is_named(tmp_path):
    done = subprocess.run([SCRIPT, "ls"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == f"There is no checkpoint in {tmp_path}.\n"
