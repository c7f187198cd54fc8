"""One worker of a small job that saves every step: the real manager, real files, a real process.

The state of a step is a function of the step, so whoever restores it can tell it bit for bit. What
this worker knows to be saved, it writes to a log of its own.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import resource
import sys
import time
import traceback

import numpy as np
import tensorflow as tf

import distckpt
from distckpt.saving import fault_points

ROWS = 512
# Seconds. The longest stop is longer than both.
DEADLINE = 4.0
LOST_AFTER = 3.0
FAILED = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """A job of a few workers on this machine.

    Attributes:
      directory: The checkpoint directory.
      board: Where the workers meet, and log.
      run: The id of this start.
      workers: How many.
      steps: Up to which step to train.
      in_background: Whether saves are asynchronous.
      fault: What strikes, or "".
      file_limit: How large a file this job's processes may write, in bytes; 0 for any size.
      umask: Which rights files are not given.
      step_seconds: How long a step of training takes.
      own: Whether what only one worker has must have come back, too.
    """

    directory: str
    board: str
    run: str
    workers: int
    steps: int
    in_background: bool
    fault: str = ""
    file_limit: int = 0
    umask: int = 0o022
    step_seconds: float = 0.0
    own: bool = True

    def log(self, index: int) -> str:
        """Returns the path of a worker's log."""
        return os.path.join(self.board, f"{self.run}-{index}.log")


def values(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the state of a step: one large enough to be split between workers, one small."""
    chance = np.random.default_rng(step)
    return chance.random((ROWS, 64), np.float32), chance.random(7, np.float32)


class Own:
    """What only one worker has: it tells the step, and whose it is."""

    def __init__(self, index: int) -> None:
        self._index = self._read = index
        self.variable = tf.Variable(tf.zeros(32, tf.int64))
        self.checkpoint = tf.train.Checkpoint(own=self.variable)

    def assign(self, step: int) -> None:
        """Takes the value of a step."""
        self.variable.assign(tf.fill([32], tf.constant(100 * step + self._index, tf.int64)))

    def take_over(self, states: distckpt.WorkerStates) -> None:
        """Takes one of the states of a job of another number of workers."""
        self._read = states.worker % len(states.paths)
        self.checkpoint.read(states.paths[self._read]).assert_consumed()

    def is_of(self, step: int) -> bool:
        """Returns whether it is what it should be after a restore of that step."""
        return bool(np.all(self.variable.numpy() == 100 * step + self._read))


def main(job: Job, index: int) -> None:
    """What the worker's process does."""
    with open(job.log(index), "a", buffering=1) as log:
        os.dup2(log.fileno(), 2)
        logging.getLogger().setLevel(logging.ERROR)
        ours = logging.getLogger("distckpt")
        ours.setLevel(logging.WARNING)
        ours.addHandler(logging.StreamHandler(log))
        os.umask(job.umask)
        try:
            if job.fault:
                fault_points.arm(fault_points.FaultPoint.parse(job.fault))
            if job.file_limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_limit, job.file_limit))
            _train(job, index, lambda *words: print(*words, file=log, flush=True))
        except BaseException as error:
            traceback.print_exc()
            print("raised", type(error).__name__, file=log, flush=True)
            sys.stderr.flush()
            os._exit(FAILED)


def _train(job: Job, index: int, say) -> None:
    coordinator = distckpt.SharedDirectory(
        job.board, job.run, index, job.workers, heartbeat_seconds=0.3, lost_after=LOST_AFTER
    )
    table, small = (tf.Variable(tf.zeros_like(value)) for value in values(0))
    step = tf.Variable(0, dtype=tf.int64)
    own = Own(index)
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(table=table, small=small, step=step),
        job.directory,
        max_to_keep=2,
        worker_checkpoint=own.checkpoint,
        coordinator=coordinator,
        options=distckpt.ManagerOptions(
            enable_async=job.in_background,
            save_deadline=DEADLINE,
            restore_deadline=60.0,
            worker_state_on_resize=own.take_over,
        ),
    )
    path = manager.restore_or_initialize()
    restored = int(step.numpy())
    if path is not None:
        expected = values(restored)
        same = table.numpy().tobytes() == expected[0].tobytes()
        same &= small.numpy().tobytes() == expected[1].tobytes()
        same &= own.is_of(restored) or not job.own
        say("restored", restored, "equal" if same else "DIFFERENT")
    else:
        say("restored", 0, "equal")
    for number in range(restored + 1, job.steps + 1):
        for variable, value in zip((table, small), values(number), strict=True):
            variable.assign(value)
        step.assign(number)
        own.assign(number)
        time.sleep(job.step_seconds)
        manager.save(checkpoint_number=number)
        # An asynchronous save() says only that the save before it is done.
        say("saved", number - 1 if job.in_background else number)
    manager.sync()
    say("saved", job.steps)
    coordinator.close()
    say("finished")
