"""The workers' own states, offered to a job with another number of workers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class WorkerStates:
    """The argument of a function given as ``ManagerOptions(worker_state_on_resize=…)``.

    Attributes:
      paths: For each worker that saved, by index, the path of its state: a plain TensorFlow
        checkpoint, for ``tf.train.Checkpoint(…).read(path)`` or ``tf.train.load_checkpoint(path)``.
        All their bytes have been checked (unless ``verify_on_restore=False``).
      worker: The index of the calling worker, which restores.
      workers: How many workers there are now.
    """

    paths: tuple[str, ...]
    worker: int
    workers: int
