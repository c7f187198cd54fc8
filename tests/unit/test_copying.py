"""What can be copied and pickled, and what refuses: a child process may get it as an argument."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest
import tensorflow as tf

import distckpt
import distckpt.keras
from distckpt import errors, keep, listeners, policies

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda it: pickle.loads(pickle.dumps(it)),
}
SAVE_POLICIES = [
    policies.EverySteps(3),
    policies.AtSteps([1, 5]),
    policies.EverySeconds(2.5),
    policies.TimeBudget(0.02),
    policies.EverySteps(3) & policies.EverySeconds(2.5) | policies.AtSteps([7]),
]
KEEP_POLICIES = [
    keep.EverySteps(3),
    keep.AtSteps([1, 5]),
    keep.EveryHours(2.0),
    keep.YoungerThan(hours=3),
    keep.Best(2, "loss"),
    keep.LastVerified(),
    keep.EverySteps(3) & keep.YoungerThan(hours=3) | keep.Best(1, "loss"),
]
REFUSAL = "cannot be copied or pickled, because it belongs to the process that made it"


@pytest.fixture
def manager(tmp_path):
    checkpoint = tf.train.Checkpoint(value=tf.Variable(1.0))
    return distckpt.CheckpointManager(checkpoint, str(tmp_path / "run"), 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", SAVE_POLICIES + KEEP_POLICIES, ids=repr)
def test_a_policy_is_copied(way, policy):
    copied = WAYS[way](policy)
    assert copied == policy
    assert repr(copied) == repr(policy)


def _same(options):
    return options


def test_options_reach_a_process_that_is_spawned():
    options = distckpt.ManagerOptions(
        save_deadline=7.0,
        save_policy=SAVE_POLICIES[-1],
        keep=KEEP_POLICIES[-1],
        listeners=[listeners.Log()],
    )
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        back = pool.apply(_same, [options])
    assert dataclass_without(back, "listeners") == dataclass_without(options, "listeners")
    assert [type(one) for one in back.listeners] == [listeners.Log]


def dataclass_without(options, name):
    return {key: value for key, value in vars(options).items() if key != name}


def test_an_error_comes_back_from_a_child_process():
    error = errors.SupersededError("another process")
    error.worker, error.trace, error.successor = 1, "in save", "host h, pid 7"
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back)) == (errors.SupersededError, "another process")
    assert (back.worker, back.trace, back.successor) == (1, "in save", "host h, pid 7")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", [False, True])
def test_a_manager_refuses(manager, way, used):
    if used:
        manager.save()
    with pytest.raises(TypeError, match=f"CheckpointManager {REFUSAL}"):
        WAYS[way](manager)


@pytest.mark.parametrize("way", WAYS)
def test_a_shared_directory_refuses(tmp_path, way):
    coordinator = distckpt.SharedDirectory(str(tmp_path), "run", 0, 1)
    with pytest.raises(TypeError, match=f"SharedDirectory {REFUSAL}"):
        WAYS[way](coordinator)
    coordinator.close()


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_callback_that_has_a_manager_refuses_with_it(manager, way):
    callback = distckpt.keras.CheckpointCallback(manager)
    with pytest.raises(TypeError, match=f"CheckpointManager {REFUSAL}"):
        WAYS[way](callback)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_callback_that_was_not_used_is_copied_with_those_that_it_remembers(tmp_path, way):
    early = tf.keras.callbacks.EarlyStopping(patience=7)
    options = distckpt.ManagerOptions(durable=False)
    callback = distckpt.keras.CheckpointCallback(
        str(tmp_path / "run"), monitor="loss", remember=[early], options=options
    )
    copied_early, copied = WAYS[way]([early, callback])
    assert copied._memory._callbacks == [copied_early]

    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(tf.ones((4, 2)), tf.ones(4), verbose=0, callbacks=[copied_early, copied])
    assert tf.train.latest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "ckpt-1")
    with pytest.raises(TypeError, match=REFUSAL):
        WAYS[way](copied)
