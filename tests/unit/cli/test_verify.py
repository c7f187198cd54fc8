from __future__ import annotations

import contextlib
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
    assert shell("verify", run).split() == ["ok", str(run / "ckpt-5")]
    assert shell("verify", run / "ckpt-3").split() == ["ok", str(run / "ckpt-3")]
    assert len(shell("verify", run, "--all").splitlines()) == 4


@pytest.mark.parametrize("argument", ["ckpt-3", "ckpt-3.index", "ckpt-3.manifest.json"])
def test_a_checkpoint_is_named_by_its_path_or_a_file(shell, run, argument):
    assert str(run / "ckpt-3") in shell("verify", run / argument)
    assert shell("verify", argument, cwd=run).split() == ["ok", str(run / "ckpt-3")]


def test_damage_is_found_and_named(shell, run):
    flip(data_file(run, "ckpt-3"), 5000)
    text = shell("verify", run, "--all", code=1)
    bad = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert len(bad) == 1
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
    ],
)
def test_other_damage(shell, run, spoil, text):
    spoil(run)
    assert text in shell("verify", run / "ckpt-3", code=1)


def test_a_plain_checkpoint(shell, run):
    os.unlink(run / "ckpt-3.manifest.json")
    shell("verify", run / "ckpt-3")
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
    assert "ckpt-3" not in shell("prune", run, "--max-to-keep", "1", "--dry-run")


def test_a_progress_bar_on_a_terminal(run):
    command = ["script", "-qec", f"{SCRIPT} verify {run}", "/dev/null"]
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
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
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "Interrupted.\n")
