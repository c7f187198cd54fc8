"""What single workers have saved for themselves, offered to a job of another number of workers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class WorkerStates:
    """What a function given as ``ManagerOptions(worker_state_on_resize=…)`` is called with.

    Attributes:
      paths: For each worker that saved, by index, the path of its state: a plain TensorFlow
        checkpoint, for ``tf.train.Checkpoint(…).read(path)`` or ``tf.train.load_checkpoint(path)``.
        All bytes of all of them have been checked (unless ``verify_on_restore=False``).
      worker: The index of the worker that restores, the caller's.
      workers: How many workers there are now.
    """

    paths: tuple[str, ...]
    worker: int
    workers: int
