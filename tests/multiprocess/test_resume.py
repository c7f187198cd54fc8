"""Jobs that are killed go on with the very next example: none twice, none left out."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf

from distckpt.launcher import LocalCluster

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).with_name("resumed.py")
ENV = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
SIZE, BATCH = 53, 8
LINE = re.compile(r"^(INDEXED|OWN) (\d+)((?: \d+)*)$", re.M)


class Start:
    """What one start of the job has read.

    Args:
      directory: The checkpoint directory.
      workers: How many workers.
      steps: Up to which step.
      kill: After so many steps of this start worker 1 is killed; None: never.
    """

    def __init__(self, directory, workers, steps, kill=None):
        command = [sys.executable, str(PROGRAM), str(directory), str(steps)]
        with LocalCluster(command, workers=workers, env=ENV) as cluster:
            if kill is not None:
                end = time.monotonic() + 90
                while cluster.output(1).count("INDEXED") < kill:
                    assert time.monotonic() < end, cluster.output(1)
                    time.sleep(0.005)
                cluster.kill(1, signal.SIGKILL)
            codes = [worker.returncode for worker in cluster.wait(timeout=400)]
            texts = [cluster.output(index) for index in range(workers)]
        assert codes == ([0] * workers if kill is None else [69, -9, *[69] * (workers - 2)]), texts
        (self.begin,) = {int(re.search(r"START (\d+)", text)[1]) for text in texts}
        # By input, worker, step: the examples.
        self.read = {"INDEXED": [{} for _ in texts], "OWN": [{} for _ in texts]}
        for worker, text in enumerate(texts):
            for name, step, examples in LINE.findall(text):
                self.read[name][worker][int(step)] = [int(n) for n in examples.split()]


def kept(starts):
    """Yields (start, worker, step) of all steps that have come into the result."""
    for start, later in zip(starts, [*starts[1:], None], strict=True):
        for worker, steps in enumerate(start.read["INDEXED"]):
            for step in steps:
                if later is None or step <= later.begin:
                    yield start, worker, step


def epochs_of(starts):
    """Returns the examples of each epoch, in the order of steps, workers and places."""
    by_step = {}
    for start, worker, step in sorted(kept(starts), key=lambda item: (item[2], item[1])):
        by_step.setdefault(step, []).extend(start.read["INDEXED"][worker][step])
    epochs = [[]]
    for step in range(1, max(by_step) + 1):
        if len(epochs[-1]) == SIZE:
            epochs.append([])
        epochs[-1] += by_step[step]
    return epochs


def test_on_any_number_of_workers_each_epoch_has_every_example_once(tmp_path):
    steps = 4 * -(-SIZE // BATCH)  # of four epochs
    starts = [
        Start(tmp_path / "run", 3, steps, kill=5),
        Start(tmp_path / "run", 2, steps, kill=8),
        Start(tmp_path / "run", 4, steps),
    ]
    assert 0 < starts[1].begin < starts[2].begin < steps
    epochs = epochs_of(starts)
    assert len(epochs) == 4
    for epoch in epochs:
        assert Counter(epoch) == Counter(range(SIZE))
    assert len({tuple(epoch) for epoch in epochs}) == 4  # each in an order of its own
    alone = [Start(tmp_path / "alone", 1, steps)]
    assert epochs_of(alone) == epochs  # whatever has happened, it is the same order


def test_on_the_same_workers_each_goes_on_in_its_own_shuffled_dataset(tmp_path):
    steps = 30  # of ten or eleven examples for each worker, three at a time: eight epochs
    starts = [
        Start(tmp_path, 3, steps, kill=7),
        Start(tmp_path, 3, steps, kill=9),
        Start(tmp_path, 3, steps),
    ]
    assert 0 < starts[1].begin < starts[2].begin < steps
    read = [{} for _ in range(3)]
    for start, worker, step in kept(starts):
        read[worker][step] = start.read["OWN"][worker][step]
    for worker, found in enumerate(read):
        examples = [found[step] for step in range(1, steps + 1)]
        assert examples == uninterrupted(worker, steps)


def uninterrupted(worker, steps):
    """Returns what a worker reads when nothing happens."""
    mine = tf.data.Dataset.range(31).shard(3, worker)
    dataset = mine.shuffle(7, seed=3).repeat().batch(3)
    return [batch.tolist() for batch in dataset.take(steps).as_numpy_iterator()]
