"""Jobs of several workers in one process, one after the other: inputs need no collective."""

from __future__ import annotations

import pytest
import tensorflow as tf

import distckpt


def context(worker, workers, local=1):
    return tf.distribute.InputContext(workers, worker, workers * local)


def ids(indices, context):
    """The dataset function of most tests: a batch is the indices themselves."""
    return indices


class Job:
    """The `IndexedInput`s of all workers of a job. What a step has read is one list."""

    def __init__(self, size, batch, workers=1, dataset_fn=ids, **options):
        self.inputs = [
            distckpt.IndexedInput(
                size, batch, dataset_fn, input_context=context(worker, workers), **options
            )
            for worker in range(workers)
        ]

    def step(self):
        return [index for mine in self.inputs for index in next(mine).numpy().tolist()]

    def steps(self, number):
        return [self.step() for _ in range(number)]

    def save(self, folder):
        """Saves as each worker; all must save the same. Returns the path of worker 0's."""
        paths = [
            tf.train.Checkpoint(input=mine).write(str(folder / f"worker-{worker}"))
            for worker, mine in enumerate(self.inputs)
        ]
        states = [mine.serialize() for mine in self.inputs]
        assert len(set(states)) == 1
        return paths[0]

    def restore(self, path):
        for mine in self.inputs:
            tf.train.Checkpoint(input=mine).read(path).assert_consumed()


@pytest.fixture
def job():
    return Job
