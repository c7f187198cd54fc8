"""Arguments of a manager, next to TensorFlow's: directories, how many to keep, `init_fn`."""

from __future__ import annotations

import inspect
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import distckpt
from distckpt import errors

from ..kit.tf_differences import TAKES_LAST_STEP


@pytest.mark.parametrize("method", ["__init__", "save", "restore_or_initialize", "sync"])
def test_the_arguments_are_those_of_tensorflow_and_more_by_name(method):
    def parameters(cls):
        signature = inspect.signature(getattr(cls, method))
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    theirs, ours = parameters(tf.train.CheckpointManager), parameters(distckpt.CheckpointManager)
    if method == "__init__" and not TAKES_LAST_STEP:
        theirs.append(("last_checkpoint_step", inspect.Parameter.POSITIONAL_OR_KEYWORD, None))
    assert ours[: len(theirs)] == theirs
    assert all(kind == inspect.Parameter.KEYWORD_ONLY for _, kind, _ in ours[len(theirs) :])


class Path:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


@pytest.mark.parametrize("kind", [str, pathlib.Path, Path], ids=["str", "Path", "PathLike"])
def test_any_path_serves(either, tmp_path, checkpoint, kind):
    manager = either(checkpoint, kind(tmp_path / "new" / "run"))
    assert manager.directory == f"{tmp_path}/new/run"
    assert manager.save() == f"{tmp_path}/new/run/ckpt-1"


@pytest.mark.parametrize("directory", ["", ".", "run", "./run/", "a/../run", "../here/run"])
def test_relative_directories_stay_relative(either, tmp_path, checkpoint, monkeypatch, directory):
    (tmp_path / "here" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    manager = either(checkpoint, directory, 1)
    manager.save()
    assert manager.save() == os.path.join(directory, "ckpt-2")
    again = either(checkpoint, directory, 1)
    assert again.directory == directory
    assert again.checkpoints == [again.latest_checkpoint] == [os.path.join(directory, "ckpt-2")]
    assert again.restore_or_initialize() == os.path.join(directory, "ckpt-2")


def test_a_directory_whose_name_tensorflow_cannot_express_is_refused(tmp_path, checkpoint):
    with pytest.raises(errors.ConfigurationError, match="not UTF-8"):
        distckpt.CheckpointManager(checkpoint, os.fsdecode(os.fsencode(tmp_path) + b"/\xff"), 1)
    assert os.listdir(tmp_path) == []


def test_the_longest_name_and_number_serve(tmp_path, checkpoint):
    manager = distckpt.CheckpointManager(checkpoint, tmp_path, 1, checkpoint_name="x" * 150)
    for number in (2**63 - 2, 2**63 - 1):
        assert manager.save(number) == str(tmp_path / f"{'x' * 150}-{number}")


def test_a_link_to_a_directory_serves(either, tmp_path, checkpoint):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert either(checkpoint, tmp_path / "link").save() == f"{tmp_path}/link/ckpt-1"
    assert either(checkpoint, tmp_path / "real").latest_checkpoint == f"{tmp_path}/real/ckpt-1"


def test_a_directory_may_be_moved(either, tmp_path, checkpoint):
    for _ in range(2):
        either(checkpoint, tmp_path / "old").save()
    (tmp_path / "old").rename(tmp_path / "new")
    manager = either(checkpoint, tmp_path / "new", 1)
    assert manager.checkpoints == [f"{tmp_path}/new/ckpt-1", f"{tmp_path}/new/ckpt-2"]
    assert manager.restore_or_initialize() == f"{tmp_path}/new/ckpt-2"
    manager.save()
    assert not (tmp_path / "new" / "ckpt-2.index").exists()


@pytest.mark.parametrize("directory", [None, 5, b"/tmp/x"])
def test_what_is_no_path_is_refused(either, checkpoint, directory):
    with pytest.raises(TypeError):
        either(checkpoint, directory)


def test_neither_constructing_nor_looking_nor_restoring_writes(make, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path / "run")
    assert (manager.latest_checkpoint, manager.checkpoints) == (None, [])
    assert manager.restore_or_initialize() is None
    manager.sync()
    with manager:
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("max_to_keep", [0, -1, -2.5])
def test_keeping_none_is_refused(either, tmp_path, checkpoint, max_to_keep):
    with pytest.raises(ValueError, match="Expected a positive integer or `None`"):
        either(checkpoint, tmp_path, max_to_keep)


@pytest.mark.parametrize("max_to_keep", [2, 2.0, 2.9, np.int64(2), np.float32(2), True, None])
def test_any_number_of_checkpoints_may_be_kept(either, tmp_path, checkpoint, max_to_keep):
    manager = either(checkpoint, tmp_path, max_to_keep)
    for _ in range(4):
        manager.save()
    kept = 4 if max_to_keep is None else int(max_to_keep)
    assert len(manager.checkpoints) == kept == len(list(tmp_path.glob("*.index")))


def test_to_keep_less_than_one_is_refused(make, tmp_path, checkpoint):
    """TensorFlow accepts 0.5, and deletes what it has just saved."""
    with pytest.raises(errors.ConfigurationError, match="at least 1"):
        make(checkpoint, tmp_path, 0.5)


def test_what_is_no_number_is_refused_before_anything_is_saved(make, tmp_path, checkpoint):
    with pytest.raises(TypeError):
        make(checkpoint, tmp_path, "3")
    with pytest.raises(errors.ConfigurationError, match="number of hours"):
        make(checkpoint, tmp_path, 3, "1")


def test_an_interval_needs_a_counter(either, tmp_path, checkpoint):
    with pytest.raises(ValueError, match="`step_counter` should be passed"):
        either(checkpoint, tmp_path, checkpoint_interval=1)


def test_a_wrong_argument_is_refused_where_the_file_is_damaged_too(make, tmp_path, checkpoint):
    (tmp_path / "checkpoint").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="Expected a positive integer"):
        make(checkpoint, tmp_path, 0)
    with pytest.raises(ValueError, match="`step_counter` should be passed"):
        make(checkpoint, tmp_path, checkpoint_interval=1)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"all_model_checkpoint_paths: 'a'", b"{"])
def test_a_damaged_file_of_tensorflow_hides_no_checkpoint(make, tmp_path, checkpoint, content):
    make(checkpoint, tmp_path).save()
    (tmp_path / "checkpoint").write_bytes(content)
    manager = make(checkpoint, tmp_path, checkpoint_interval=2, step_counter=checkpoint.value)
    assert manager.checkpoint is checkpoint
    assert manager.checkpoint_interval == 2
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"
    checkpoint.value.assign_add(2)
    assert manager.save() == f"{tmp_path}/ckpt-2"
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-2"


def test_init_fn_is_called_only_where_there_is_no_checkpoint(either, tmp_path, checkpoint):
    calls = []
    manager = either(checkpoint, tmp_path, init_fn=lambda: calls.append(1))
    assert manager.restore_or_initialize() is None
    assert calls == [1]
    manager.save()
    assert manager.restore_or_initialize() == manager.latest_checkpoint
    assert calls == [1]


def test_an_error_of_init_fn_is_passed_on(either, tmp_path, checkpoint):
    def init_fn():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        either(checkpoint, tmp_path, init_fn=init_fn).restore_or_initialize()


def test_our_own_arguments_are_given_by_name(tmp_path, checkpoint):
    arguments = [None, "ckpt", None, None, None, None]
    with pytest.raises(TypeError, match="positional"):
        distckpt.CheckpointManager(checkpoint, tmp_path, 3, *arguments, None)
