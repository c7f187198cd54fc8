"""Round trips of all kinds of state, between plain TensorFlow and us, alone and shared."""

from __future__ import annotations

import types

import numpy as np
import pytest
import tensorflow as tf

from distckpt.coordination.in_process import InProcessJob
from distckpt.state.capture import Capture
from distckpt.testing.threads import run_in_threads

from ..manager.conftest import make, observer  # noqa: F401 - fixtures

WORKERS = 3

# A program that ends before all it has restored was asked for is told so, at length, at its end.
tf.get_logger().setLevel("ERROR")


def bits(value):
    """A variable's or tensor's type, shape and bytes."""
    array = np.asarray(value.numpy())
    content = array.tolist() if array.dtype == object else array.tobytes()
    return (array.dtype.name, array.shape, content)


def program(checkpoint, read):
    """What `RoundTrips.run` wants its `build` to return."""
    return types.SimpleNamespace(checkpoint=checkpoint, read=read)


def take(checkpoint, *, workers=1, index=0, split="all", options=None):
    """Returns the state and the plan of a first save."""
    return Capture(checkpoint, workers=workers, index=index, split=split).take(options)


def together(jobs):
    """Runs functions in threads, as workers of one job; raises what the first of them raised."""
    results = [None] * len(jobs)

    def run(index):
        results[index] = jobs[index]()

    run_in_threads(run, range(len(jobs)), 150)
    return results


class RoundTrips:
    """Saves and restores one kind of state in every direction.

    `build(number)` makes a program whose state depends on `number`. It has a ``checkpoint``, a
    `tf.train.Checkpoint`, and ``read()``, which returns its state as something to compare; it is
    called once, and may change the state.
    """

    def __init__(self, manager, watcher, root):
        self.make, self.observer, self.root = manager, watcher, root

    def run(self, build, *, workers=True, whole=True):
        """Saves with each, compares the files, and restores with each what each has saved.

        Args:
          build: See above.
          workers: Whether several workers can share the writing, too.
          whole: Whether plain TensorFlow finds nothing missing when it restores.
        """
        original = build(1)
        paths = {
            "plain": tf.train.CheckpointManager(original.checkpoint, self.root / "plain", 3).save(),
        }
        original.checkpoint.save_counter.assign(0)
        paths["ours"] = self.make(original.checkpoint, self.root / "ours", 3).save()
        if workers:
            paths["shared"] = self.save_shared(build)
        contents = {name: self.observer.contents(path) for name, path in paths.items()}
        for name in paths.keys() - {"plain"}:
            assert contents[name] == contents["plain"]
            assert self.observer.verify(self.root / name, "ckpt-1") is not None
            assert self.observer.leftovers(self.root / name) == []
        expected = original.read()
        assert build(2).read() != expected, "the test would prove nothing"
        for name, path in paths.items():
            assert self.restored_by(self.make, build, name) == expected
            assert self.restored_by(tf.train.CheckpointManager, build, name) == expected
            copy = build(2)
            status = copy.checkpoint.restore(path)
            (status.assert_consumed if whole else status.assert_existing_objects_matched)()
            assert copy.read() == expected
        return paths

    def restored_by(self, factory, build, name):
        copy = build(2)
        manager = factory(copy.checkpoint, self.root / name, 3)
        assert manager.restore_or_initialize() == f"{self.root}/{name}/ckpt-1"
        assert int(copy.checkpoint.save_counter) == 1
        return copy.read()

    def save_shared(self, build):
        """Saves as several workers with equal states, each a share."""
        job = InProcessJob(WORKERS)
        managers = [
            self.make(
                build(1).checkpoint, self.root / "shared", 3, coordinator=job.coordinator(index)
            )
            for index in range(WORKERS)
        ]
        paths = together([manager.save for manager in managers])
        assert len(set(paths)) == 1
        return paths[0]


@pytest.fixture
def round_trips(make, observer, tmp_path):  # noqa: F811 - pytest finds the fixtures by these names
    return RoundTrips(make, observer, tmp_path)
