"""``save(metrics=…)`` and ``ManagerOptions(keep=…)``: what is recorded, and what then stays."""

from __future__ import annotations

import math
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

import distckpt
from distckpt import keep
from distckpt.core.manifest import Retention
from distckpt.directory.catalog import Catalog
from distckpt.errors import ConfigurationError
from distckpt.storage.local import LocalStorage


@pytest.fixture
def step():
    return tf.Variable(0, dtype=tf.int64)


@pytest.fixture
def new_manager(tmp_path, step):
    def new(policy, max_to_keep=1, directory=tmp_path / "run"):
        return distckpt.CheckpointManager(
            tf.train.Checkpoint(step=step),
            directory,
            max_to_keep,
            step_counter=step,
            options=distckpt.ManagerOptions(durable=False, keep=policy),
        )

    return new


def manifest(path):
    directory, name = os.path.split(path)
    return Catalog(LocalStorage(), directory).manifest(name)


def save_all(manager, step, rows):
    for number, loss in rows:
        step.assign(number)
        manager.save(number, metrics={"loss": loss})


def names(directory):
    return sorted(
        (p.name.removesuffix(".index") for p in pathlib.Path(directory).glob("*.index")),
        key=lambda name: int(name.rsplit("-")[-1]),
    )


ROWS = [(5, 0.9), (10, 0.5), (15, 0.7), (20, 0.6), (25, math.nan)]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (keep.EverySteps(10), [10, 20, 25]),
        (keep.Best(1, "loss"), [10, 25]),
        (keep.Best(2, "loss", "max"), [5, 15, 25]),
        (keep.EverySteps(10) & keep.Best(1, "loss"), [10, 25]),
        (keep.AtSteps([12]) | keep.Best(1, "loss"), [10, 15, 25]),
        (keep.YoungerThan(hours=1), [5, 10, 15, 20, 25]),
        (keep.EveryHours(1), [5, 25]),
    ],
)
@pytest.mark.parametrize("max_to_keep", [1, None])
def test_what_the_policy_keeps_stays_and_is_listed(new_manager, step, policy, left, max_to_keep):
    manager = new_manager(policy, max_to_keep)
    save_all(manager, step, ROWS)
    expected = [f"ckpt-{number}" for number in left]
    assert names(manager.directory) == expected
    assert [os.path.basename(path) for path in manager.checkpoints] == expected


def test_another_manager_goes_on_with_the_same_decisions(new_manager, step):
    policy = keep.Best(1, "loss") | keep.EverySteps(10)
    save_all(new_manager(policy), step, ROWS[:3])
    manager = new_manager(policy)
    manager.restore_or_initialize()
    save_all(manager, step, ROWS[3:])
    assert names(manager.directory) == ["ckpt-10", "ckpt-20", "ckpt-25"]


def test_the_last_that_was_verified_stays(new_manager, step):
    save_all(new_manager(keep.LastVerified(), 3), step, ROWS[:2])
    manager = new_manager(keep.LastVerified())
    manager.restore_or_initialize()
    save_all(manager, step, ROWS[2:])
    assert names(manager.directory) == ["ckpt-10", "ckpt-25"]
    again = new_manager(keep.LastVerified())  # the note tells it, although it restores nothing
    step.assign(30)
    again.save(30)
    assert names(manager.directory) == ["ckpt-10", "ckpt-30"]


def test_a_policy_that_raises_deletes_nothing(new_manager, step, caplog):
    class Broken(keep.KeepPolicy):
        def reasons(self, checkpoints, now):
            raise RuntimeError("no idea")

    manager = new_manager(Broken())
    save_all(manager, step, ROWS)
    assert len(names(manager.directory)) == len(ROWS)
    assert "no idea" in caplog.text


# --- What the manifest says


def test_metrics_and_rules_stand_in_the_manifest(new_manager, step):
    policy = keep.Best(2, "loss") | keep.EverySteps(10)
    manager = new_manager(policy, 3)
    path = manager.save(
        1,
        metrics={
            "loss": np.float32(0.5),
            "accuracy": tf.constant(0.25),
            "lost": math.nan,
            "far": -math.inf,
        },
    )
    found = manifest(path)
    assert math.isnan(found.metrics.pop("lost"))
    assert found.metrics == {"loss": 0.5, "accuracy": 0.25, "far": -math.inf}
    assert found.retention == Retention(3, None, repr(policy))
    assert keep.parse(found.retention.keep) == policy
    text = pathlib.Path(f"{path}.manifest.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


def test_an_asynchronous_save_records_metrics_too(tmp_path, step):
    options = distckpt.ManagerOptions(enable_async=True)
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(step=step), tmp_path / "run", 3, options=options
    )
    with manager:
        path = manager.save(metrics={"loss": 1})
    assert manifest(path).metrics == {"loss": 1.0}


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ([1], "must be a dictionary"),
        ({"loss": "low"}, r"metrics\['loss'\] must be a number, got 'low'"),
        ({"loss": [1.0, 2.0]}, "must be a number"),
        ({"loss": tf.constant([1.0, 2.0])}, "must be a number"),
        ({3: 1.0}, "names of metrics must be strings, got 3"),
    ],
)
def test_bad_metrics_are_refused_before_anything_is_saved(new_manager, metrics, text):
    manager = new_manager(None)
    with pytest.raises(ConfigurationError, match=text):
        manager.save(metrics=metrics)
    assert not os.path.exists(manager.directory)
    manager.save(metrics={"loss": 1.0})
    assert manager.checkpoints == [os.path.join(manager.directory, "ckpt-1")]


def test_a_policy_of_another_kind_is_refused():
    with pytest.raises(ConfigurationError, match=r"keep must be a policy of distckpt\.keep"):
        distckpt.ManagerOptions(keep="EverySteps(3)")


def test_a_checkpoint_that_was_copied_here_is_judged_by_its_manifest(new_manager, step, tmp_path):
    first = new_manager(keep.Best(1, "loss"))
    save_all(first, step, ROWS[:2])
    shutil.copytree(first.directory, tmp_path / "copy")
    manager = new_manager(keep.Best(1, "loss"), directory=tmp_path / "copy")
    save_all(manager, step, ROWS[2:])
    assert names(manager.directory) == ["ckpt-10", "ckpt-25"]


def test_a_misspelt_metric_deletes_nothing_and_is_named_once(new_manager, step, tmp_path, caplog):
    manager = new_manager(keep.Best(1, "los") | keep.EverySteps(10))
    save_all(manager, step, ROWS)
    assert names(tmp_path / "run") == [f"ckpt-{number}" for number, _ in ROWS]
    assert caplog.text.count("Nothing is deleted. No checkpoint has the metric 'los'") == 1
    assert "there are: loss" in caplog.text
    save_all(new_manager(keep.Best(1, "loss")), step, [(30, 0.8)])
    assert names(tmp_path / "run") == ["ckpt-10", "ckpt-30"]
