"""Real workers that are killed at random times and start again read each example once."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import time
from pathlib import Path

import pytest
import tensorflow as tf

import distckpt

from ..unit.kit.warm import WarmCluster

pytestmark = pytest.mark.cluster

PROGRAM = Path(__file__).with_name("input_train.py")
_spec = importlib.util.spec_from_file_location("input_train", PROGRAM)
train = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(train)


class Run:
    """A job that is started again and again, in one directory."""

    def __init__(self, root, local):
        self.directory, self.log, self.local = root / "run", root / "log", local
        self.log.mkdir()
        self.chance = random.Random()

    def go(self, workers, steps, *, kill_after=None):
        """Lets it train until it has done `steps`, or kills it some time after `kill_after` steps.

        Returns:
          The step at which it resumed, and {step: the examples of each replica}.
        """
        for path in self.log.iterdir():
            path.unlink()
        env = {"DIRECTORY": self.directory, "LOG": self.log, "STEPS": steps, "LOCAL": self.local}
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        with WarmCluster(
            [PROGRAM],
            workers=workers,
            env={**{name: str(value) for name, value in env.items()}, **quiet},
        ) as job:
            if kill_after is not None:
                self._await(job, kill_after)
                time.sleep(self.chance.uniform(0.0, 0.3))
                job.kill(self.chance.randrange(workers))
                self._await_end(job)
            else:
                results = job.wait(120)
                assert [r.returncode for r in results] == [0] * workers, job.output(0)
            outputs = [job.output(worker) for worker in range(workers)]
        resumed = {int(text.split("resumed ")[1].split()[0]) for text in outputs}
        assert len(resumed) == 1, outputs
        return resumed.pop(), self._read(workers)

    def _await(self, job, steps):
        deadline = time.monotonic() + 120
        while max((len(p.read_text().splitlines()) for p in self.log.iterdir()), default=0) < steps:
            ended = [p.index for p in job.processes if p.returncode is not None]
            assert not ended, job.output(ended[0])
            assert time.monotonic() < deadline, job.output(0)
            time.sleep(0.01)

    def _await_end(self, job):
        """One worker is dead; the other workers notice it at their next collective or save."""
        deadline = time.monotonic() + 90
        while any(process.returncode is None for process in job.processes):
            assert time.monotonic() < deadline, "the others hang: " + job.output(0)
            job.poll(0.2)

    def _read(self, workers):
        """What was logged by all workers; the last line of one that was killed may be half."""
        by_worker = [{} for _ in range(workers)]
        for worker, found in enumerate(by_worker):
            for line in (self.log / f"worker-{worker}").read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    step, examples, own = json.loads(line)
                    assert step not in found
                    found[step] = list(zip(examples, own, strict=True))
        common = set.intersection(*(set(found) for found in by_worker))
        return {
            step: [replica for found in by_worker for replica in found[step]]
            for step in sorted(common)
        }


def in_order(steps):
    """What a run that nobody kills reads: for each step, the indexed examples of all replicas."""
    batches = distckpt.IndexedInput(train.SIZE, train.BATCH, train.indexed, seed=train.SEED)
    return [next(batches).numpy().tolist() for _ in range(steps)]


def of_their_own(workers, local, steps):
    """What it reads of the workers' own datasets: for each step and replica, a batch."""
    read = []
    for worker in range(workers):
        context = tf.distribute.InputContext(workers, worker, workers * local)
        batches = iter(train.own(context))
        read.append([[next(batches).numpy().tolist() for _ in range(local)] for _ in range(steps)])
    return [[batch for worker in read for batch in worker[step]] for step in range(steps)]


def test_after_two_kills_all_was_read_once_as_if_nothing_had_happened(tmp_path):
    """Two workers of two replicas each; every start must read what the run without kills reads."""
    run, steps = Run(tmp_path, local=2), 36
    expected, own = in_order(steps), of_their_own(2, 2, steps)
    kept, reached = {}, 0
    for kill_after in (4, 4, None):
        resumed, read = run.go(2, steps, kill_after=kill_after)
        assert resumed % train.SAVE_EVERY == 0
        assert resumed <= reached
        assert kill_after is not None or resumed > 0
        for step, replicas in read.items():
            examples = list(itertools.chain.from_iterable(part for part, _ in replicas))
            assert examples == expected[step], step
            assert [mine for _, mine in replicas] == own[step], step
            kept[step] = examples
        reached = max(kept) + 1
    assert sorted(kept) == list(range(steps))
    each_epoch_once(kept)


def test_three_workers_share_what_one_has_left_of_the_epoch(tmp_path):
    """More numbers, with the input in the checkpoint of all: test_resume.py."""
    run, steps = Run(tmp_path, local=1), 24
    expected = in_order(steps)
    kept = {}
    for workers, kill_after in ((1, 4), (3, None)):
        resumed, read = run.go(workers, steps, kill_after=kill_after)
        assert (resumed > 0) == (workers == 3)
        for step, replicas in read.items():
            examples = list(itertools.chain.from_iterable(part for part, _ in replicas))
            assert examples == expected[step], step
            kept[step] = examples
    assert sorted(kept) == list(range(steps))
    each_epoch_once(kept)


def each_epoch_once(kept):
    examples = [example for step in sorted(kept) for example in kept[step]]
    epochs = len(examples) // train.SIZE
    assert epochs >= 8
    for epoch in range(epochs):
        part = examples[epoch * train.SIZE : (epoch + 1) * train.SIZE]
        assert sorted(part) == list(range(train.SIZE)), epoch


def test_workers_whose_inputs_could_end_at_different_steps_are_stopped(pools):
    results = pools(2).run("inputs.inputs_that_differ")
    for worker, texts in enumerate(results):
        assert "the number of steps must be the same on all workers" in texts["other number"]
        assert f"{4 + worker} on worker {worker}" in texts["other number"]
        assert "unknown number of elements" in texts["unknown number"]
        assert "global_batch must be the same" in texts["other batch"]
        assert "OSError: no such file" in texts["failing"]
        assert ("IndexedInput failed on worker 1" in texts["failing"]) == (worker == 0)
    assert "have not made their WorkerInput: worker 1" in results[0]["missing"]


def test_workers_with_uneven_shares_stay_together_in_eager_loops(pools):
    """Where each worker traces its step anew for other shapes, at steps of its own."""
    results = pools(2).run("inputs.inputs_of_uneven_shares", timeout=400)
    sums, shapes = zip(*results, strict=True)
    assert sums[0] == sums[1] == [3, 12, 21, 30, 12] * 2
    assert shapes[0] != shapes[1]
