"""`CheckpointCallback` in `fit` of tf-keras and of Keras 3, with two and three workers."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from distckpt.launcher import LocalCluster

from ..unit.kit.warm import WarmCluster

pytestmark = pytest.mark.cluster
PROGRAM = str(Path(__file__).with_name("keras_fit.py"))


class Ended:
    """How the workers of one start have ended."""

    def __init__(self, cluster, workers):
        self.codes = [worker.returncode for worker in workers]
        self.texts = [cluster.output(worker.index) for worker in workers]

    def all_of(self, pattern):
        """What each worker's output has of a pattern."""
        return [re.findall(pattern, text, re.M) for text in self.texts]

    def one(self, pattern):
        """The same, which must be alike on all workers."""
        first, *others = self.all_of(pattern)
        assert all(found == first for found in others), self.texts
        return first

    @property
    def batches(self):
        return self.one(r"^BATCH (\S+)$")

    @property
    def digest(self):
        (found,) = self.one(r"^DIGEST (\S+)$")
        return found

    @property
    def averages(self):
        (found,) = self.one(r"^AVERAGES (.+)$")
        return [float(number) for number in found.split()]


def start(legacy, workers, directory, **given):
    """One start of the program."""
    settings = [f"{name}={value}" for name, value in given.items()]
    env = {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_USE_LEGACY_KERAS": str(int(legacy)),
        "DISTCKPT_GRACE_SECONDS": "60",
    }
    command = [PROGRAM, str(directory), *settings]
    if legacy:  # TensorFlow chooses its Keras when it is imported
        cluster = LocalCluster([sys.executable, *command], workers=workers, env=env)
    else:
        cluster = WarmCluster(command, workers=workers, env=env)
    with cluster:
        return Ended(cluster, cluster.wait(timeout=400))


@pytest.mark.parametrize(("legacy", "workers"), [(True, 2), (True, 3), (False, 2)])
def test_kill_9_and_sigterm_leave_no_trace(tmp_path, legacy, workers):
    expected = start(legacy, workers, tmp_path / "uninterrupted")
    assert expected.codes == [0] * workers, expected.texts

    directory = tmp_path / "interrupted"
    killed = start(legacy, workers, directory, at="0.5", signal="SIGKILL")  # saves every third
    options = {"preemption": 1, "async": 1}
    # A worker may fail because the other one died first.
    assert -signal.SIGKILL in killed.codes, killed.texts
    assert 0 not in killed.codes, killed.texts
    told = start(legacy, workers, directory, at="1.4", of=workers - 1, signal="SIGTERM", **options)
    assert told.codes == [75] * workers, told.texts
    done = start(legacy, workers, directory, **options)
    assert done.codes == [0] * workers, done.texts

    assert killed.batches == ["0.0", "0.1", "0.2", "0.3", "0.4"]
    assert told.batches[-1] in ("1.4", "1.5")
    if legacy:
        assert killed.batches[:3] + told.batches + done.batches == expected.batches
    else:  # it counts from the epoch's first batch on, also those that are not trained again
        assert told.batches[0] == "0.0"
        assert done.batches == [batch for batch in expected.batches if batch >= "1.0"]
    assert done.digest == expected.digest
    if legacy:  # Keras 3 leaves each worker an average of its own, and saves one of them
        assert done.averages == pytest.approx(expected.averages, rel=1e-5, abs=1e-7)


def test_the_chief_says_which_is_the_best(tmp_path):
    """The other worker's metric is the negative of the chief's: it would decide otherwise."""
    ended = start(True, 2, tmp_path, monitor="0.9:1.1:0.8:0.8:0.7", epochs=5)
    assert ended.codes == [0, 0], ended.texts
    assert ended.one(r"^SAVED (.*)$") == ["ckpt-1 ckpt-2 ckpt-3"]


@pytest.mark.parametrize(("legacy", "workers"), [(True, 2), (False, 1)])
def test_the_newest_and_the_best_after_kill_9(tmp_path, legacy, workers):
    """The recipe of docs/keras.md: a restart replaces none of the best, and knows the steps."""
    given = {"recipe": "0.9:0.8:0.85:0.7:0.6"}
    best = r"^BEST (\S+) (\d+) (\S+)$"
    expected = [("ckpt-1", "8", "0.9"), ("ckpt-2", "16", "0.8")]
    expected += [("ckpt-3", "32", "0.7"), ("ckpt-4", "40", "0.6")]
    killed = start(legacy, workers, tmp_path, at="2.4", signal="SIGKILL", **given)
    assert set(killed.codes) == {-signal.SIGKILL}, killed.texts
    done = start(legacy, workers, tmp_path, **given)
    assert done.codes == [0] * workers, done.texts
    assert done.one(best) == expected
    assert not [text for text in done.texts if "This save replaces" in text]


def test_keras_3_still_needs_the_strategy_of_the_example(tmp_path):
    """If not, docs/keras.md and launch/keras_digits.py can do without."""
    ended = start(False, 2, tmp_path, plain=1)
    assert 0 not in ended.codes
    assert "Attempt to convert a value (PerReplica" in "".join(ended.texts)


def test_the_example_goes_on_in_the_middle_of_an_epoch(tmp_path):
    """`launch/keras_digits.py` as its first lines say."""
    program = Path(__file__).parents[2] / "launch" / "keras_digits.py"
    words = [sys.executable, str(program), "--directory", str(tmp_path), "--epochs"]
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    for epochs, last in ((1, 3), (2, 6)):  # 24 batches an epoch; saved every ten, and at the end
        with LocalCluster([*words, str(epochs)], workers=2, env=env) as cluster:
            ended = Ended(cluster, cluster.wait(timeout=400))
        assert ended.codes == [0, 0], ended.texts
        assert ended.one(r"saves (\S+)$")[-1] == f"{tmp_path}/ckpt-{last}"
    assert ended.one(r"resumes in epoch (\d+)") == ["2"]
