from __future__ import annotations

import concurrent.futures
import os
import pathlib
import signal
import subprocess

import numpy as np
import pytest
import tensorflow as tf

import distckpt
from distckpt.coordination.in_process import InProcessJob
from distckpt.core.tensorflow_format.index_reader import read_index

from .conftest import SCRIPT, VALUES, content, flip

safetensors = pytest.importorskip("safetensors.numpy")


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """A checkpoint of two workers, with a tensor that both have written and types of all kinds."""
    directory = str(tmp_path_factory.mktemp("divided") / "run")
    job = InProcessJob(2)
    managers = [
        distckpt.CheckpointManager(
            tf.train.Checkpoint(
                big=tf.Variable(tf.reshape(tf.range(40_000.0), (400, 100))),
                half=tf.Variable(tf.cast([0.5, 1.5], tf.bfloat16)),
                text=tf.Variable(["a", "b"]),
                small=tf.Variable(7),
            ),
            directory,
            3,
            coordinator=job.coordinator(worker),
            options=distckpt.ManagerOptions(durable=False),
        )
        for worker in range(2)
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda manager: manager.save(), managers))
    return paths[0]


def same_in_tensorflow(one, other):
    a, b = (tf.train.load_checkpoint(str(path)) for path in (one, other))
    keys = a.get_variable_to_shape_map().keys()
    assert keys == b.get_variable_to_shape_map().keys()
    for key in keys:
        assert np.asarray(a.get_tensor(key)).tolist() == np.asarray(b.get_tensor(key)).tolist()


def test_a_plain_checkpoint_of_one_data_file(shell, divided, tmp_path):
    assert any(e.slices for e in read_index(pathlib.Path(f"{divided}.index").read_bytes()).tensors)
    before = content(os.path.dirname(divided))
    shell("export", divided, tmp_path / "new" / "model")
    assert sorted(os.listdir(tmp_path / "new")) == ["model.data-00000-of-00001", "model.index"]
    same_in_tensorflow(divided, tmp_path / "new" / "model")
    index = read_index((tmp_path / "new" / "model.index").read_bytes())
    assert index.num_shards == 1
    assert not any(e.slices for e in index.tensors)
    shell("verify", tmp_path / "new" / "model")
    shell("diff", divided, tmp_path / "new" / "model")
    v = tf.Variable(tf.zeros((400, 100)))
    tf.train.Checkpoint(big=v).restore(str(tmp_path / "new" / "model")).expect_partial()
    assert float(v[399, 99]) == 39_999.0
    assert content(os.path.dirname(divided)) == before


def test_npz(shell, divided, tmp_path):
    text = shell("export", divided, tmp_path / "model.npz", "--to", "npz")
    assert "Omitted, because npz cannot hold their types: _CHECKPOINTABLE_OBJECT_GRAPH" in text
    with np.load(tmp_path / "model.npz", allow_pickle=False) as found:
        assert sorted(found.files) == ["big", "half", "save_counter", "small"]
        assert (found["big"] == np.arange(40_000.0).reshape(400, 100)).all()
        assert found["half"].dtype == np.float32
        assert found["half"].tolist() == [0.5, 1.5]
        assert found["small"] == 7


def test_safetensors(shell, divided, tmp_path):
    path = tmp_path / "model.safetensors"
    shell("export", divided, path, "--to", "safetensors", "--filter", "[bs]*")
    found = safetensors.load_file(path)
    assert sorted(found) == ["big", "save_counter", "small"]
    assert (found["big"] == np.arange(40_000.0).reshape(400, 100)).all()


@pytest.mark.parametrize("form", ["plain", "npz", "safetensors"])
def test_what_is_there_is_replaced_only_by_force(shell, run, tmp_path, form):
    out = tmp_path / "out"
    shell("export", run / "ckpt-4", out, "--to", form)
    before = content(tmp_path)
    assert "exists already; --force" in shell("export", run, out, "--to", form, code=2)
    assert content(tmp_path) == before
    shell("export", run, out, "--to", form, "--force")
    assert content(tmp_path) != before
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@pytest.mark.parametrize("form", ["plain", "npz", "safetensors"])
def test_a_damaged_one_leaves_nothing(shell, run, tmp_path, form):
    flip(run / "ckpt-5.data-00000-of-00001", 5000)
    out = tmp_path / "out"
    assert "is damaged" in shell("export", run / "ckpt-5", out / "x", "--to", form, code=1)
    assert os.listdir(out) == []


def test_bad_input(shell, run, tmp_path):
    assert "No tensor" in shell("export", run, tmp_path / "x", "--filter", "zzz", code=2)
    assert "local path" in shell("export", run, "gs://bucket/x", code=2)
    assert "Did you mean" in shell("export", run / "ckpt-6", tmp_path / "x", code=2)
    (tmp_path / "file").write_text("")
    assert "Error: " in shell("export", run, tmp_path / "file" / "x", code=2)
    assert sorted(os.listdir(tmp_path)) == ["file", "run"]


def test_a_full_disk_leaves_nothing(run, tmp_path):
    command = f"ulimit -f 16; trap '' XFSZ; exec {SCRIPT} export {run} {tmp_path / 'out' / 'x'}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert os.listdir(tmp_path / "out") == []


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path):
    state = tf.train.Checkpoint(**{f"v{i}": tf.Variable(tf.zeros(1 << 21)) for i in range(40)})
    path = state.write(str(tmp_path / "big"))
    out = tmp_path / "out"
    with subprocess.Popen(
        [SCRIPT, "export", path, out / "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (out.exists() and os.listdir(out)):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=300)
    assert (process.returncode, printed, errors) == (130, b"", b"Interrupted.\n")
    assert os.listdir(out) == []


@pytest.mark.parametrize("out", ["ckpt-4", "best", "best.npz"])
def test_nothing_is_written_into_the_directory_of_a_job(shell, run, out):
    """An export named ckpt-4 would replace a checkpoint, and be taken for one."""
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    said = shell("export", run / "ckpt-5", run / out, "--force", code=2)
    assert said == (
        f"Error: {run} is the checkpoint directory of a job. Give OUT in another directory.\n"
    )
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*")}


def test_the_values_are_those_of_the_newest(shell, run, tmp_path):
    shell("export", run, tmp_path / "x.npz", "--to", "npz")
    with np.load(tmp_path / "x.npz") as found:
        assert found["values"][0] == 5.0
        assert len(found["values"]) == VALUES


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_the_suffix_says_the_form(shell, run, tmp_path, suffix):
    out = tmp_path / f"model.{suffix}"
    shell("export", run, out)
    shell("export", run, tmp_path / "other", "--to", suffix)
    (other,) = [p for p in tmp_path.iterdir() if p.name.startswith("other")]
    assert out.stat().st_size == other.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        [out.name, other.name]
    )


def test_an_explicit_form_counts_more_than_the_suffix(shell, run, tmp_path):
    shell("export", run, tmp_path / "model.npz", "--to", "plain")
    assert (tmp_path / "model.npz.index").exists()


def test_an_error_names_the_output_and_not_its_temporary_name(shell, run, tmp_path):
    (tmp_path / "model.npz").mkdir()
    text = shell("export", run, tmp_path / "model.npz", "--force", code=2)
    assert text == f"Error: {tmp_path / 'model.npz'}: Is a directory.\n"
    assert shell("export", run, "/proc/model.npz", code=2).startswith("Error: /proc/model.npz: ")
