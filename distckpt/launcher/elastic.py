"""Which workers are lost when a cluster fails. Pure.

On one machine, the death of a process loses no host. So "lost" imitates a real cluster: a worker is
lost if it failed first, or if it was killed before the launcher began to stop all workers. A worker
whose exit code says that it ended because of other workers (`exit_codes`) is not lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from distckpt import exit_codes
from distckpt.launcher import outcome
from distckpt.launcher.outcome import WorkerProcess


def lost(workers: Sequence[WorkerProcess], stopped_at: float | None) -> list[WorkerProcess]:
    """Returns the lost workers.

    Args:
      workers: All workers, as they ended.
      stopped_at: When the launcher began to stop them, by the clock of `WorkerProcess.ended_at`;
        None if it did not.
    """
    first = outcome.first_failed(workers)
    return [
        worker
        for worker in workers
        if (worker is first and worker.returncode not in exit_codes.BECAUSE_OF_OTHERS)
        or _was_killed(worker, stopped_at)
    ]


def _was_killed(worker: WorkerProcess, stopped_at: float | None) -> bool:
    if worker.returncode is None or worker.returncode >= 0 or worker.ended_at is None:
        return False
    return stopped_at is None or worker.ended_at < stopped_at
