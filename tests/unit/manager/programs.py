"""Jobs whose workers are threads of this process, each with variables and a manager of its own.

What they run is a training program: it counts steps, calls ``save()``, catches errors, continues.
The state is several variables that all hold the number of the step, so a checkpoint that mixes two
steps is noticed.
"""

from __future__ import annotations

import pathlib
import threading

import tensorflow as tf

import distckpt
from distckpt.coordination.in_process import InProcessJob
from distckpt.testing.threads import run_in_threads

PARTS = 6
COUNTED = ["step_counter", "iterations", "nothing"]  # see `Worker`
MODES = [{}, {"enable_async": True}]


class Worker:
    """One worker: its variables, its manager, and how its calls ended.

    Args:
      job: The job.
      index: Which worker.
      directory: Where it saves.
      counted: What says at which step the state is: "step_counter", "iterations" (an integer
        variable in the state), or "nothing".
      options: For `distckpt.ManagerOptions`.
      manager: For the manager.
    """

    def __init__(self, job, index, directory, *, counted="step_counter", options=None, **manager):
        self.index = index
        self.parts = [tf.Variable(tf.zeros((40,))) for _ in range(PARTS)]
        self.step = tf.Variable(0, dtype=tf.int64)
        tracked = {"parts": self.parts}
        if counted != "nothing":
            tracked["iterations"] = self.step
        if counted == "step_counter":
            manager["step_counter"] = self.step
        self.checkpoint = tf.train.Checkpoint(**tracked)
        self.manager = distckpt.CheckpointManager(
            self.checkpoint,
            str(directory),
            manager.pop("max_to_keep", None),
            coordinator=job.coordinator(index),
            options=distckpt.ManagerOptions(**{"durable": False, **(options or {})}),
            **manager,
        )
        self.heard = []  # (step, path or error), in order

    @property
    def errors(self):
        """The errors of its calls."""
        return [result for _, result in self.heard if isinstance(result, BaseException)]

    @property
    def failed_steps(self):
        """The steps at which a call failed."""
        return [step for step, result in self.heard if isinstance(result, BaseException)]

    @property
    def saved_steps(self):
        """The steps at which a call returned the path of a checkpoint."""
        return {step for step, result in self.heard if isinstance(result, str)}

    def train(self, steps=1):
        """Takes some steps."""
        for _ in range(steps):
            self.step.assign_add(1)
            for part in self.parts:
                part.assign(tf.fill((40,), float(self.step.numpy())))

    def save(self, **arguments):
        """Calls ``save()``, as a program that logs errors and continues; returns how it ended."""
        return self.attempt(lambda: self.manager.save(**arguments))

    def sync(self):
        """Calls ``sync()``."""
        return self.attempt(self.manager.sync)

    def attempt(self, call):
        """Does `call`; returns its result or its error, and remembers it."""
        try:
            result = call()
        except Exception as error:
            result = error
        self.heard.append((int(self.step.numpy()), result))
        return result


class Job:
    """The workers of a job.

    Args:
      count: How many.
      directory: Where they save.
      store: Makes their coordinators; None for an `InProcessJob`.
      worker: As for `Worker`.
    """

    def __init__(self, count, directory, *, store=None, **worker):
        self.store = store or InProcessJob(count)
        self.directory = str(directory)
        self._in_step = threading.Barrier(count)
        self.workers = [Worker(self.store, i, directory, **worker) for i in range(count)]

    def run(self, program, *, patience=200.0):
        """Runs ``program(worker)`` on all, at once; raises what one of them raises."""
        run_in_threads(program, self.workers, patience)

    def together(self, patience=120.0):
        """Waits for all workers, as a collective in a training step does."""
        self._in_step.wait(patience)

    def saved(self):
        """Returns {name: the step that it holds} of what is committed; fails on a mixture."""
        found = {}
        for manifest in pathlib.Path(self.directory).glob("*.manifest.json"):
            name = manifest.name.removesuffix(".manifest.json")
            reader = tf.train.load_checkpoint(f"{self.directory}/{name}")
            values = {
                float(reader.get_tensor(f"parts/{n}/.ATTRIBUTES/VARIABLE_VALUE")[i])
                for n in range(PARTS)
                for i in (0, -1)
            }
            assert len(values) == 1, f"{name} is a mixture of {values}"
            found[name] = int(values.pop())
        return found

    def keys(self):
        """Returns how many keys are in the key-value store."""
        return len(self.store._values)
