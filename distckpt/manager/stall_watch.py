"""Finds out whether a job advances, in a process that ends because another worker is missing.

See `directory.stall_notes`. `exit_codes` asks when an exception is about to end the process.
"""

from __future__ import annotations

import logging

from distckpt import exit_codes
from distckpt.coordination.background import Background
from distckpt.coordination.crew import Crew
from distckpt.directory import stall_notes
from distckpt.storage.choose import storage_for

_log = logging.getLogger("distckpt")
# Seconds for a directory to answer: its server may be why the workers missed each other.
_PATIENCE = 10.0
# Where this process saves, and as which worker.
_directories: dict[str, int] = {}


def watch(directory: str, worker: int) -> None:
    """Notes that a manager of this process saves to `directory`, as worker number `worker`."""
    _directories[directory] = worker
    exit_codes.judge_by(_comes_to_nothing)


def _comes_to_nothing() -> bool:
    """Returns whether no directory got a commit since an earlier start ended like this.

    Never raises, and waits no longer than `_PATIENCE`. If in doubt, the answer is no.
    """
    try:
        look = Background(_look, Crew(0))
        if not look.finished(_PATIENCE) or not all(look.result()):
            return False
    except Exception as error:
        _log.warning("Cannot find out whether this job advances: %s", error)
        return False
    _log.error(
        "An earlier start of this job has ended in the same way, because the workers missed each "
        "other, and nothing has been committed to %s since. So this one ends with exit code %d, "
        "which counts as a failure. Does every worker call save() at the same point of the "
        "program? See what the error above says about each worker.",
        " or ".join(_directories),
        exit_codes.STALLED,
    )
    return True


def _look() -> list[bool]:
    return [
        stall_notes.comes_to_nothing(storage_for(directory), directory, worker)
        for directory, worker in _directories.items()
    ]
