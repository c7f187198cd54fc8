"""diff: what differs, and what can be compared of a damaged checkpoint."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf

from .conftest import content, flip
from .damages import DATA


def test_two_checkpoints_are_compared(shell, run):
    before = content(run)
    text = shell("diff", run / "ckpt-4", run / "ckpt-5", code=1)
    assert "3 different, 1 the same" in text
    rows = [line.split() for line in text.splitlines()[1:-1]]
    assert [row[0] for row in rows] == ["save_counter", "step", "values"]
    assert rows[2][1] == "1"
    assert "0 different, 4 the same" in shell("diff", run / "ckpt-5", run)
    assert "... and 2 more" in shell("diff", run / "ckpt-4", run, "--most", "1", code=1)
    document = shell.json("diff", run / "ckpt-4", run / "ckpt-5", code=1)
    assert document["different"] == 3
    assert document["differences"][1]["largest"] == 10.0
    assert content(run) == before


def test_what_is_in_one_alone_comes_first(shell, run, tmp_path):
    tf.train.Checkpoint(step=tf.Variable(1.0), more=tf.Variable(1.0)).write(str(tmp_path / "other"))
    lines = shell("diff", run, tmp_path / "other", code=1).splitlines()
    text = "\n".join(lines)
    assert "only in the first" in text
    assert "only in the second" in text
    assert "int64[], then float32[]" in text


# --- Damage


def rows(text):
    return {line.split()[0]: line for line in text.splitlines()[1:] if "hanged" in line}


@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_of_damaged_data_the_checksums_are_compared(shell, run, damage):
    if damage == "cut":
        os.truncate(run / DATA, 70_000)
        problem = f"{DATA} has 70000 bytes instead of 80283."
    elif damage == "gone":
        (run / DATA).unlink()
        problem = f"{DATA} is missing."
    else:
        flip(run / DATA, 5000)
        problem = f"{run / DATA}: Tensor 'values/.ATTRIBUTES/VARIABLE_VALUE' is damaged"
    text = shell("diff", run / "ckpt-4", run / "ckpt-5", code=1)
    assert rows(text)["values"].endswith("changed, by the checksums")
    assert "3 different, 1 the same" in text
    assert f"{run / 'ckpt-5'} is damaged: {problem}" in text
    found = shell.json("diff", run / "ckpt-4", run / "ckpt-5", code=1)
    assert list(found["problems"]) == [str(run / "ckpt-5")]
    text = shell("diff", run, run, code=0 if damage == "changed" else 1)
    assert "0 different, 4 the same" in text


def test_without_a_good_manifest_the_index_is_compared(shell, run):
    (run / "ckpt-4.manifest.json").unlink()
    text = shell("diff", run / "ckpt-4", run / "ckpt-5", code=1)
    assert "3 different, 1 the same" in text
    assert text.endswith(f"{run / 'ckpt-4'} has no manifest: its index was compared.\n")
    (run / "ckpt-5.manifest.json").write_text("{")
    text = shell("diff", run / "ckpt-4", run / "ckpt-5", code=1)
    assert "3 different, 1 the same" in text
    assert f"{run / 'ckpt-5'} is damaged: " in text
    (run / "ckpt-5.index").write_text("no index")
    text = shell("diff", run / "ckpt-4", run / "ckpt-5", code=1)
    assert text.startswith("Error: ")
