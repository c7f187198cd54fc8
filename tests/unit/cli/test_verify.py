from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import pytest
import tensorflow as tf

from .conftest import SCRIPT, content, flip


def open_files(pid):
    found = []
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return found


def data_file(run, name):
    return run / f"{name}.data-00000-of-00001"


def test_the_newest_one_or_all(shell, run):
    said = ": every byte, and the manifest by its own checksum\n"
    assert shell("verify", run) == f"ok   {run / 'ckpt-5'}{said}"
    assert shell("verify", run / "ckpt-3") == f"ok   {run / 'ckpt-3'}{said}"
    lines = shell("verify", run, "--all").splitlines()
    assert len(lines) == 5
    assert lines[-1] == "4 checkpoints: all good."


@pytest.mark.parametrize("argument", ["ckpt-3", "ckpt-3.index", "ckpt-3.manifest.json"])
def test_a_checkpoint_is_named_by_its_path_or_a_file(shell, run, argument):
    assert str(run / "ckpt-3") in shell("verify", run / argument)
    assert shell("verify", argument, cwd=run).startswith("ok   ./ckpt-3: ")


def test_damage_is_found_and_named(shell, run):
    flip(data_file(run, "ckpt-3"), 5000)
    text = shell("verify", run, "--all", code=1)
    bad = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert len(bad) == 1
    assert "4 checkpoints: 3 good, 1 damaged.\nA restore skips the damaged ones." in text
    assert text.endswith("or move them away: ckpt-3.*\n")
    assert "ckpt-3.data-00000-of-00001" in bad[0]
    assert "'values/.ATTRIBUTES/VARIABLE_VALUE'" in bad[0]
    document = shell.json("verify", run, "--all", code=1)
    assert [c["good"] for c in document["checkpoints"]] == [True, False, True, True]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda run: os.unlink(data_file(run, "ckpt-3")), "data-00000-of-00001"),
        (lambda run: os.truncate(data_file(run, "ckpt-3"), 99), "has 99 bytes instead of"),
        (lambda run: flip(run / "ckpt-3.index"), "is not the index that the manifest"),
        (lambda run: (run / "ckpt-3.manifest.json").write_text("{"), "not a readable manifest"),
        (lambda run: edit(run, "ckpt-3"), "was changed after it was written: its checksum is"),
    ],
)
def test_other_damage(shell, run, spoil, text):
    spoil(run)
    assert text in shell("verify", run / "ckpt-3", code=1)


def edit(run, name):
    path = run / f"{name}.manifest.json"
    path.write_text(path.read_text().replace('"loss": 0.', '"loss": 0.00'))


def test_a_manifest_of_an_older_version_has_no_checksum(shell, run):
    path = run / "ckpt-3.manifest.json"
    body = json.loads(path.read_text())
    del body["checksum"]
    path.write_text(json.dumps({**body, "version": 1}))
    assert "has no checksum" in shell("verify", run / "ckpt-3")
    found = {c["name"]: c["manifest"] for c in shell.json("verify", run, "--all")["checkpoints"]}
    assert found["ckpt-3"] == "not verified"
    assert found["ckpt-5"] == "verified"


def test_a_plain_checkpoint(shell, run):
    os.unlink(run / "ckpt-3.manifest.json")
    assert "without a manifest" in shell("verify", run / "ckpt-3")
    assert shell.json("verify", run / "ckpt-3")["checkpoints"][0]["manifest"] == "none"
    flip(data_file(run, "ckpt-3"), 5000)
    shell("verify", run / "ckpt-3", code=1)


def test_a_name_that_is_not_there_suggests_the_nearest(shell, run):
    text = shell("verify", run / "ckpt-6", code=2)
    assert "There is no checkpoint 'ckpt-6'" in text
    assert "Did you mean ckpt-" in text
    assert "The newest by number is ckpt-5" in shell("verify", run / "xyz", code=2)
    assert "no directory" in shell("verify", run / "nowhere" / "ckpt-1", code=2)


def test_it_changes_nothing_unless_a_note_is_wanted(shell, run):
    before = content(run)
    shell("verify", run, "--all")
    assert content(run) == before
    shell("verify", run / "ckpt-3", "--note")
    (new,) = content(run).keys() - before.keys()
    assert new == ".distckpt/verified/ckpt-3.json"
    assert shell("gc", run) == f"Nothing is left over in {run}.\n"
    # Unlike ckpt-3 alone, the last that was verified stays.
    planned = shell.json("prune", run, "--max-to-keep", "1", "--dry-run")
    assert "ckpt-3" in planned["kept"]


def test_a_progress_bar_on_a_terminal(run):
    command = ["script", "-qec", f"{SCRIPT} verify {run}", "/dev/null"]
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert "━" in done.stdout
    assert str(run / "ckpt-5") in done.stdout


def test_ctrl_c_in_the_middle(tmp_path):
    """Made of many tensors, so that there is a middle."""
    state = tf.train.Checkpoint(
        **{f"v{i}": tf.Variable(tf.zeros(1 << 21)) for i in range(40)}  # 8 MiB each
    )
    path = state.write(str(tmp_path / "big"))
    with subprocess.Popen(
        [SCRIPT, "verify", path, "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not any(".data-" in link for link in open_files(process.pid)):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (130, "", "Interrupted.\n")


def test_if_all_are_damaged_the_commands_say_what_a_job_would_do(shell, run):
    for name in ("ckpt-2", "ckpt-3", "ckpt-4", "ckpt-5"):
        os.truncate(data_file(run, name), 1)
    for command in (["ls", run], ["verify", run, "--all"]):
        said = shell(*command, code=1)
        assert said.count("No checkpoint can be restored: a job that starts here ends with") == 1
