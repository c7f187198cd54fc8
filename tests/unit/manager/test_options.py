"""Every argument of a manager and of ``save()``, next to what TensorFlow makes of it."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import pathlib
import threading

import numpy as np
import pytest
import tensorflow as tf

import distckpt
from distckpt import errors
from distckpt.core import parts

from .conftest import FAST


@pytest.fixture
def checkpoint():
    return tf.train.Checkpoint(
        a=tf.Variable(tf.range(600.0)), b=tf.Variable(tf.range(300.0)), c=tf.Variable(7)
    )


def shards(path):
    return sorted(
        p.name for p in pathlib.Path(path).parent.glob(f"{os.path.basename(path)}.data-*")
    )


def restored(path):
    """What plain TensorFlow finds under `path`."""
    copy = tf.train.Checkpoint(
        a=tf.Variable(tf.zeros(600)), b=tf.Variable(tf.zeros(300)), c=tf.Variable(0)
    )
    copy.restore(path).assert_consumed()
    return [v.numpy().tolist() for v in (copy.a, copy.b, copy.c)]


def values(checkpoint):
    return [v.numpy().tolist() for v in (checkpoint.a, checkpoint.b, checkpoint.c)]


# --- Arguments


@pytest.mark.parametrize("method", ["__init__", "save", "restore_or_initialize", "sync"])
def test_the_arguments_are_those_of_tensorflow_and_more_by_name(method):
    def parameters(cls):
        signature = inspect.signature(getattr(cls, method))
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    theirs, ours = parameters(tf.train.CheckpointManager), parameters(distckpt.CheckpointManager)
    assert ours[: len(theirs)] == theirs
    assert all(kind == inspect.Parameter.KEYWORD_ONLY for _, kind, _ in ours[len(theirs) :])


# --- Directories


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


# --- Retention


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
    """TensorFlow takes 0.5, and deletes what it has just saved."""
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
    manager = make(checkpoint, tmp_path, checkpoint_interval=2, step_counter=checkpoint.c)
    assert manager.checkpoint is checkpoint
    assert manager.checkpoint_interval == 2
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"
    checkpoint.c.assign_add(2)
    assert manager.save() == f"{tmp_path}/ckpt-2"
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-2"


# --- Initialisation


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


# --- Write callbacks


def test_callbacks_are_called_in_order_with_the_path_if_they_take_it(either, tmp_path, checkpoint):
    calls = []
    options = tf.train.CheckpointOptions(
        experimental_write_callbacks=[
            lambda: calls.append("none"),
            lambda path: calls.append(path),
            lambda *paths: calls.append(paths),
        ]
    )
    manager = either(checkpoint, tmp_path)
    path = manager.save(options=options)
    assert calls == ["none", path, (path,)]
    manager.save(options=options)
    assert len(calls) == 6
    assert len(options.experimental_write_callbacks) == 3


def test_callbacks_find_the_checkpoint_committed_and_listed(make, observer, tmp_path, checkpoint):
    found = []

    def look(path):
        found.append((observer.verify(tmp_path, os.path.basename(path)).name, restored(path)))
        found.append((tf.train.latest_checkpoint(tmp_path), manager.latest_checkpoint))
        found.append(sorted(p.name for p in tmp_path.glob("*.index")))

    manager = make(checkpoint, tmp_path, 1)
    manager.save()
    path = manager.save(options=tf.train.CheckpointOptions(experimental_write_callbacks=[look]))
    assert found == [("ckpt-2", values(checkpoint)), (path, path), ["ckpt-2.index"]]


def test_an_error_of_a_callback_is_passed_on_and_the_save_stands(make, tmp_path, checkpoint):
    """In TensorFlow the checkpoint would be written, but on no list."""

    def fail():
        raise KeyError("mine")

    manager = make(checkpoint, tmp_path)
    options = tf.train.CheckpointOptions(experimental_write_callbacks=[fail])
    with pytest.raises(KeyError, match="mine"):
        manager.save(options=options)
    assert manager.latest_checkpoint == tf.train.latest_checkpoint(tmp_path)
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"
    assert manager.save() == f"{tmp_path}/ckpt-2"


def test_no_callbacks_at_all_are_fine(either, tmp_path, checkpoint):
    manager = either(checkpoint, tmp_path)
    assert manager.save(options=tf.train.CheckpointOptions(experimental_write_callbacks=[]))
    assert manager.save(options=tf.train.CheckpointOptions())


# --- Other options of save()


def asynchronous_options():
    late = tf.train.CheckpointOptions()
    late.experimental_enable_async_checkpoint = True  # what TensorFlow looks at
    return [
        tf.train.CheckpointOptions(enable_async=True),
        tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True),
        late,
    ]


@pytest.mark.parametrize("options", asynchronous_options())
def test_a_save_is_asynchronous_if_it_is_asked_for_in_any_way(make, tmp_path, checkpoint, options):
    threads = []
    options.experimental_write_callbacks = [lambda: threads.append(threading.current_thread())]
    manager = make(checkpoint, tmp_path / "run")
    assert manager.save(options=options) == f"{tmp_path}/run/ckpt-1"
    manager.sync()
    assert manager.checkpoints == [f"{tmp_path}/run/ckpt-1"]
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("size", [500, 1300, 10**9])
def test_shards_are_of_the_size_asked_for(make, observer, tmp_path, checkpoint, size):
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(size)
    )
    plain = tf.train.CheckpointManager(checkpoint, tmp_path / "plain", 3).save(options=options)
    checkpoint.save_counter.assign(0)
    ours = make(checkpoint, tmp_path / "ours", 3).save(options=options)
    assert shards(ours) == shards(plain)
    assert (len(shards(ours)) > 1) == (size < 10**6)
    assert observer.contents(ours) == observer.contents(plain)
    assert restored(ours) == values(checkpoint)
    assert observer.verify(tmp_path / "ours", "ckpt-1").name == "ckpt-1"
    assert observer.leftovers(tmp_path / "ours") == []


def test_shards_of_one_number_are_replaced(make, observer, tmp_path, checkpoint):
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(900)
    )
    manager = make(checkpoint, tmp_path, 1)
    for value in range(4):
        checkpoint.c.assign(value)
        path = manager.save(1, options=options if value % 2 else None)
        assert restored(path) == values(checkpoint)
        assert observer.leftovers(tmp_path) == []


def test_a_shard_for_each_task(make, observer, tmp_path, checkpoint):
    policy = tf.train.experimental.ShardByTaskPolicy()
    options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    path = make(checkpoint, tmp_path).save(options=options)
    assert shards(path) == ["ckpt-1.data-00000-of-00001"]
    assert restored(path) == values(checkpoint)


class OnePerTensor(tf.train.experimental.ShardingCallback):
    description = "one shard for each tensor"

    def __call__(self, tensors):
        return [{t.checkpoint_key: {t.slice_spec: t.tensor}} for t in tensors]


def test_a_sharding_callback_of_the_users_decides(make, observer, tmp_path, checkpoint):
    options = tf.train.CheckpointOptions(experimental_sharding_callback=OnePerTensor())
    path = make(checkpoint, tmp_path).save(options=options)
    assert len(shards(path)) == 5
    assert restored(path) == values(checkpoint)
    assert make(checkpoint, tmp_path).restore_or_initialize() == path


class Failing(tf.train.experimental.ShardingCallback):
    description = "cannot"

    def __call__(self, tensors):
        raise ValueError("my shards")


def test_an_error_of_a_sharding_callback_fails_the_save(make, observer, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path)
    manager.save()
    before = observer.everything(manager)
    with pytest.raises(errors.SaveFailedError, match="my shards"):
        manager.save(options=tf.train.CheckpointOptions(experimental_sharding_callback=Failing()))
    assert observer.everything(manager) == before
    assert observer.leftovers(tmp_path) == []


@pytest.mark.parametrize("device", ["CPU:0", "/job:localhost", "/job:localhost/device:CPU:0"])
def test_files_are_written_from_the_device_asked_for(
    make, observer, tmp_path, checkpoint, monkeypatch, device
):
    used = []
    save = tf.raw_ops.SaveV2

    def spy(**kwargs):
        used.append(tf.constant(0).device)
        return save(**kwargs)

    monkeypatch.setattr(tf.raw_ops, "SaveV2", spy)
    options = tf.train.CheckpointOptions(experimental_io_device=device)
    path = make(checkpoint, tmp_path).save(options=options)
    assert used == ["/job:localhost/replica:0/task:0/device:CPU:0"]
    assert restored(path) == values(checkpoint)


def test_a_device_that_is_not_there_fails_the_save(make, observer, tmp_path, checkpoint):
    manager = make(checkpoint, tmp_path)
    options = tf.train.CheckpointOptions(experimental_io_device="/job:elsewhere/device:CPU:7")
    with pytest.raises(errors.SaveFailedError, match="elsewhere"):
        manager.save(options=options)
    assert observer.leftovers(tmp_path) == []
    assert manager.save() == f"{tmp_path}/ckpt-2"


def test_an_option_for_restoring_is_taken_and_changes_nothing(either, tmp_path, checkpoint):
    options = tf.train.CheckpointOptions(experimental_skip_slot_variables=True)
    assert restored(either(checkpoint, tmp_path).save(options=options)) == values(checkpoint)


@pytest.mark.parametrize("options", ["fast", {"enable_async": True}, 3])
def test_other_things_than_options_are_refused_by_save(either, tmp_path, checkpoint, options):
    with pytest.raises(AttributeError):
        either(checkpoint, tmp_path / "run").save(options=options)
    assert not (tmp_path / "run").exists()


# --- ManagerOptions


def test_the_defaults_are_safe():
    options = distckpt.ManagerOptions()
    assert (options.durable, options.verify_on_restore) == (True, True)
    assert (options.save_deadline, options.restore_deadline) == (600.0, 600.0)


@pytest.mark.parametrize("name", ["save_deadline", "restore_deadline"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "10", None, True, 1j])
def test_a_deadline_is_a_positive_time(name, value):
    with pytest.raises(errors.ConfigurationError, match=f"{name} must be a positive"):
        distckpt.ManagerOptions(**{name: value})


@pytest.mark.parametrize("name", ["durable", "verify_on_restore"])
@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_a_switch_is_true_or_false(name, value):
    with pytest.raises(errors.ConfigurationError, match=f"{name} must be True or False"):
        distckpt.ManagerOptions(**{name: value})


def test_options_are_given_by_name_and_stay_as_they_are():
    with pytest.raises(TypeError):
        distckpt.ManagerOptions(10.0)
    with pytest.raises(AttributeError):
        distckpt.ManagerOptions().durable = False


@pytest.mark.parametrize(
    "options", [{"durable": False}, True, "fast", tf.train.CheckpointOptions()]
)
def test_other_things_than_options_are_refused(make, tmp_path, checkpoint, options):
    with pytest.raises(errors.ConfigurationError, match=r"must be a distckpt\.ManagerOptions"):
        make(checkpoint, tmp_path, options=options)


def test_our_own_arguments_are_given_by_name(tmp_path, checkpoint):
    arguments = [None, "ckpt", None, None, None, None]
    with pytest.raises(TypeError, match="positional"):
        distckpt.CheckpointManager(checkpoint, tmp_path, 3, *arguments, None)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("verify", [True, False])
def test_every_option_saves_and_restores_the_same(tmp_path, checkpoint, durable, verify):
    options = distckpt.ManagerOptions(
        durable=durable, verify_on_restore=verify, save_deadline=5, restore_deadline=5.5
    )
    manager = distckpt.CheckpointManager(checkpoint, tmp_path, 1, options=options)
    before = values(checkpoint)
    manager.save()
    checkpoint.c.assign(0)
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"
    assert values(checkpoint) == before == restored(f"{tmp_path}/ckpt-1")


# --- Parts


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_large_share_is_written_in_as_many_parts_as_threads(
    make, observer, tmp_path, monkeypatch, threads
):
    monkeypatch.setattr(parts, "LEAST", 1000)
    checkpoint = tf.train.Checkpoint(
        values=[tf.Variable(tf.fill([500], float(n))) for n in range(9)]
    )
    options = dataclasses.replace(FAST, write_threads=threads)
    manager = make(checkpoint, tmp_path / "ours", 1, options=options)
    for number in (1, 2, 2):
        path = manager.save(number)
        files = [p for p in (tmp_path / "ours").glob("*.data-*") if p.stat().st_size > 0]
        assert len(files) == threads
        plain = checkpoint.write(str(tmp_path / f"plain-{number}"))
        ours = observer.contents(path)
        assert {k: v for k, v in observer.contents(plain).items() if "save_" not in k} == {
            k: v for k, v in ours.items() if "save_" not in k
        }
    assert observer.verify(tmp_path / "ours", "ckpt-2") is not None
    assert observer.leftovers(tmp_path / "ours") == []


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4", None])
def test_the_number_of_threads_is_a_positive_integer(value):
    with pytest.raises(errors.ConfigurationError, match="write_threads"):
        distckpt.ManagerOptions(write_threads=value)


def test_options_of_asynchronous_saves_are_checked():
    with pytest.raises(errors.ConfigurationError, match='"wait" or "skip"'):
        distckpt.ManagerOptions(when_busy="drop")
    with pytest.raises(errors.ConfigurationError, match="EverySteps"):
        distckpt.ManagerOptions(save_policy=100)
    with pytest.raises(errors.ConfigurationError, match="enable_async"):
        distckpt.ManagerOptions(enable_async="yes")
