"""``options`` of ``save()``, next to TensorFlow's: callbacks, shards, devices."""

from __future__ import annotations

import os
import threading

import pytest
import tensorflow as tf

from distckpt import errors

from .three_variables import restored, shards, three_variables, values


@pytest.fixture
def checkpoint():
    return three_variables()


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


@pytest.mark.parametrize("enable_async", [False, True])
def test_an_error_of_a_callback_is_logged_and_the_save_stands(
    make, tmp_path, checkpoint, caplog, enable_async
):
    """With TensorFlow the checkpoint would exist, but not be listed."""

    def fail():
        raise KeyError("mine")

    manager = make(checkpoint, tmp_path)
    options = tf.train.CheckpointOptions(
        enable_async=enable_async, experimental_write_callbacks=[fail]
    )
    assert manager.save(options=options) == f"{tmp_path}/ckpt-1"
    manager.sync()
    assert "KeyError: 'mine'" in caplog.text
    assert manager.latest_checkpoint == tf.train.latest_checkpoint(tmp_path)
    assert manager.latest_checkpoint == f"{tmp_path}/ckpt-1"
    assert manager.save() == f"{tmp_path}/ckpt-2"


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_a_callback_cannot_end_the_program_from_the_background(
    make, tmp_path, checkpoint, caplog, error
):
    def fail():
        raise error

    manager = make(checkpoint, tmp_path)
    options = tf.train.CheckpointOptions(enable_async=True, experimental_write_callbacks=[fail])
    assert manager.save(options=options) == f"{tmp_path}/ckpt-1"
    manager.sync()
    assert "write callback of ckpt-1 has failed. The checkpoint is saved." in caplog.text
    assert manager.save() == f"{tmp_path}/ckpt-2"


def test_a_callback_can_end_the_program_in_a_blocking_save(make, tmp_path, checkpoint):
    def fail():
        raise SystemExit(3)

    manager = make(checkpoint, tmp_path)
    options = tf.train.CheckpointOptions(experimental_write_callbacks=[fail])
    with pytest.raises(SystemExit):
        manager.save(options=options)
    assert manager.save() == f"{tmp_path}/ckpt-2"
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1", f"{tmp_path}/ckpt-2"]


def test_no_callbacks_at_all_are_fine(either, tmp_path, checkpoint):
    manager = either(checkpoint, tmp_path)
    assert manager.save(options=tf.train.CheckpointOptions(experimental_write_callbacks=[]))
    assert manager.save(options=tf.train.CheckpointOptions())


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
    with pytest.raises((AttributeError, errors.ConfigurationError)):
        either(checkpoint, tmp_path / "run").save(options=options)
    assert not (tmp_path / "run").exists()
