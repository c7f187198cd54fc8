from __future__ import annotations

import math
import subprocess
import sys

import pytest
import tensorflow as tf

from .conftest import flip, owned_by


def test_the_newest_or_a_named_one(shell, run):
    text = shell("show", run)
    assert text.startswith(f"{run / 'ckpt-5'}: step 50, loss 0.2, saved ")
    assert "worker 0 on " in text
    assert "4 of 4 tensors" in text
    row = next(line for line in text.splitlines() if line.startswith("values"))
    assert row.split() == ["values", "float32", "20000", "78.1", "KiB", "0", "data-00000-of-00001"]
    assert shell("show", run / "ckpt-3").startswith(str(run / "ckpt-3"))


def test_filters_and_values(shell, run):
    text = shell("show", run, "--filter", "v*", "--values")
    assert "min 5 mean 10004.5 max 20004" in text
    assert "1 of 4 tensors" in text
    assert "50" in shell("show", run, "--filter", "step", "--values").splitlines()[-2]
    assert ".ATTRIBUTES" in shell("show", run, "--full-keys")


def test_json(shell, run):
    document = shell.json("show", run, "--values", "--filter", "s*")
    assert (document["step"], document["metrics"]) == (50, {"loss": 0.2})
    tensors = {t["key"].partition("/")[0]: t for t in document["tensors"]}
    assert tensors["step"]["values"] == 50
    assert tensors["save_counter"]["values"] == 5
    assert tensors["step"]["workers"] == [0]


def test_odd_values(shell, tmp_path):
    checkpoint = tf.train.Checkpoint(
        nan=tf.Variable([math.nan, math.inf, *[1.0] * 9]),
        text=tf.Variable(["a", "b" * 99, "c"]),
        empty=tf.Variable(tf.zeros((0, 3))),
        half=tf.Variable(tf.zeros(3, tf.bfloat16)),
        complex=tf.Variable([1j, 2j]),
    )
    checkpoint.write(str(tmp_path / "odd"))
    text = shell("show", tmp_path / "odd", "--values")
    assert "min 1 mean 1 max 1 std 0, 2 not finite" in text
    assert "b'a'" in text
    assert "(99 bytes)" in text
    assert "a plain TensorFlow checkpoint" in text
    document = shell.json("show", tmp_path / "odd", "--values")
    values = {t["key"].partition("/")[0]: t["values"] for t in document["tensors"]}
    assert values["nan"][:3] == ["nan", "inf", 1.0]
    assert values["complex"] == [[0.0, 1.0], [0.0, 2.0]]


def test_what_is_damaged_is_not_shown(shell, run):
    flip(run / "ckpt-5.data-00000-of-00001", 5000)
    shell("show", run)
    assert "is damaged in data file 0" in shell("show", run, "--values", code=1)
    flip(run / "ckpt-5.index")
    assert "Error: " in shell("show", run / "ckpt-5", code=1)


@pytest.mark.parametrize("command", ["show", "diff"])
def test_names_that_are_not_there(shell, run, command):
    arguments = [run / "ckpt-7"] if command == "show" else [run, run / "ckpt-7"]
    assert "Did you mean ckpt-" in shell(command, *arguments, code=2)


def test_a_save_that_is_not_complete_is_named_with_what_is_written(shell, run):
    folder = run / "ckpt-6.pending-00000001-000006-ab"
    folder.mkdir()
    for file, size in {
        "probe": 1,
        "shard-00000-of-00002.data-00000-of-00001": 5000,
        "shard-00001-of-00002.data-00000-of-00001": 3000,
        "shard-00001-of-00002.index": 24,
    }.items():
        (folder / file).write_bytes(b"x" * size)
    far = "writing, 7.84 KiB so far (worker 0: writing, 4.88 KiB; worker 1: written, 2.95 KiB)"
    for path in (run / "ckpt-6", folder):
        text = shell("show", path, code=2)
        assert f"ckpt-6 was not saved completely, by a job that has ended (term 1): {far}." in text
        assert "`distckpt gc` removes" in text
    owned_by(run)
    text = shell("verify", run / "ckpt-6", code=2)
    assert text == f"Error: ckpt-6 is being saved (term 1): {far}.\n"
    assert "There is no checkpoint 'ckpt-7'" in shell("show", run / "ckpt-7", code=2)


def test_tensorflow_is_not_imported(run):
    program = (
        "import sys; from distckpt.cli import main\n"
        f"run = {str(run)!r}\n"
        "for words in (['show', run, '--values'], ['diff', run, run]):\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_data_file_that_is_missing_is_damage_of_the_checkpoint(shell, run):
    (run / "ckpt-5.data-00000-of-00001").unlink()
    text = shell("show", run, code=1)
    assert "4 of 4 tensors" in text
    assert text.endswith("ckpt-5 is damaged: ckpt-5.data-00000-of-00001 is missing.\n")
    text = shell("show", run, "--values", code=1)
    assert text.endswith("ckpt-5.data-00000-of-00001: No such file or directory.\n")
