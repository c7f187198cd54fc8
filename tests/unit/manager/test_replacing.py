"""A manager warns, once, before it replaces a checkpoint that is none of its own."""

from __future__ import annotations

import logging

import pytest
import tensorflow as tf

import distckpt

KEY = "value/.ATTRIBUTES/VARIABLE_VALUE"


def small_checkpoint(value=1.0):
    return tf.train.Checkpoint(value=tf.Variable([value, 2.0]))


@pytest.fixture
def three(make, tmp_path):
    """A directory with ckpt-1 to ckpt-3."""
    manager = make(small_checkpoint(), tmp_path)
    for _ in range(3):
        manager.save()
    return tmp_path


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if "neither written nor restored" in r.message]


def test_a_directory_that_is_continued_without_a_restore(make, three, caplog):
    manager = make(small_checkpoint(), three)
    assert warnings(caplog) == []
    assert manager.save() == f"{three}/ckpt-1"  # as in TensorFlow
    (warning,) = warnings(caplog)
    assert f"ckpt-1 in {three}" in warning
    for advice in ("restore_or_initialize()", "another directory", "checkpoint_number"):
        assert advice in warning
    manager.save()
    make(small_checkpoint(), three).save()
    assert len(warnings(caplog)) == 2  # once for each manager


def test_it_is_said_before_the_replacement(make, three):
    manager = make(small_checkpoint(5.0), three)
    seen = []

    class Look(logging.Handler):
        def emit(self, record):
            if "neither written" in record.getMessage():
                seen.append(tf.train.load_checkpoint(f"{three}/ckpt-1").get_tensor(KEY)[0])

    handler = Look()
    logging.getLogger("distckpt").addHandler(handler)
    try:
        manager.save()
    finally:
        logging.getLogger("distckpt").removeHandler(handler)
    assert seen == [1.0]


def test_an_asynchronous_save(make, three, caplog):
    options = distckpt.ManagerOptions(durable=False, enable_async=True)
    with make(small_checkpoint(), three, options=options) as manager:
        manager.save()
    assert len(warnings(caplog)) == 1


def test_a_plain_checkpoint_of_tensorflow(make, tmp_path, caplog):
    tf.train.CheckpointManager(small_checkpoint(), tmp_path, 5).save()
    make(small_checkpoint(), tmp_path).save()
    assert len(warnings(caplog)) == 1


def test_a_number_that_was_given(make, three, caplog):
    manager = make(small_checkpoint(), three)
    manager.save(checkpoint_number=7)
    assert warnings(caplog) == []
    manager.save(checkpoint_number=2)
    assert len(warnings(caplog)) == 1


def test_what_it_has_written_or_restored_it_may_replace(make, three, caplog):
    manager = make(small_checkpoint(), three)
    manager.restore_or_initialize()
    manager.save(checkpoint_number=3)
    manager.save(checkpoint_number=8)
    manager.save(checkpoint_number=8)
    assert warnings(caplog) == []


def test_an_older_one_that_was_restored_does_not_make_the_newer_ones_its_own(make, three, caplog):
    """Somebody has pointed TensorFlow's file to it; ckpt-3 is as good as before."""
    plain = tf.train.CheckpointManager(small_checkpoint(), three, 5)
    plain.save(checkpoint_number=1)
    manager = make(small_checkpoint(), three)
    assert manager.restore_or_initialize() == f"{three}/ckpt-1"
    manager.save(checkpoint_number=1)
    assert warnings(caplog) == []
    manager.save(checkpoint_number=3)
    assert len(warnings(caplog)) == 1


def damage(directory, name):
    (data,) = directory.glob(f"{name}.data-*")
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)


def test_a_damaged_one_that_the_restore_has_passed_over_is_meant_to_be_replaced(
    make, three, caplog
):
    damage(three, "ckpt-2")
    damage(three, "ckpt-3")
    manager = make(small_checkpoint(), three)
    assert manager.restore_or_initialize() == f"{three}/ckpt-1"
    assert manager.save() == f"{three}/ckpt-2"
    successor = make(small_checkpoint(), three)  # knows of ckpt-3 by the note
    assert successor.restore_or_initialize() == f"{three}/ckpt-2"
    assert successor.save() == f"{three}/ckpt-3"
    assert warnings(caplog) == []


@pytest.mark.parametrize("suffix", [".manifest.json", ".index"])
def test_one_that_nobody_could_restore(make, three, caplog, suffix):
    (three / f"ckpt-1{suffix}").write_bytes(b"nonsense")
    make(small_checkpoint(), three).save()
    assert warnings(caplog) == []
