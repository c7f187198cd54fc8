"""`ManagerOptions`: defaults, refused values, and how many parts a share is written in."""

from __future__ import annotations

import dataclasses
import math

import pytest
import tensorflow as tf

import distckpt
from distckpt import errors
from distckpt.core.protocol import share_parts

from .conftest import FAST
from .three_variables import restored, three_variables, values


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


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("verify", [True, False])
def test_every_option_saves_and_restores_the_same(tmp_path, durable, verify):
    checkpoint = three_variables()
    options = distckpt.ManagerOptions(
        durable=durable, verify_on_restore=verify, save_deadline=5, restore_deadline=5.5
    )
    manager = distckpt.CheckpointManager(checkpoint, tmp_path, 1, options=options)
    before = values(checkpoint)
    manager.save()
    checkpoint.c.assign(0)
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-1"
    assert values(checkpoint) == before == restored(f"{tmp_path}/ckpt-1")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_large_share_is_written_in_as_many_parts_as_threads(
    make, observer, tmp_path, monkeypatch, threads
):
    monkeypatch.setattr(share_parts, "LEAST", 1000)
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
