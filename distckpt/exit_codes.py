"""Exit codes that tell a scheduler whether to start a job again.

Kubernetes' podFailurePolicy, a Slurm script or a shell loop see one number of a process that has
ended. These are used by ``distckpt launch`` and, in workers that it has started in a pod, by Python
itself when an exception ends the program (`install`). The numbers are BSD's ``sysexits.h`` where
that has one for the purpose.

Nothing here needs TensorFlow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType

from distckpt.errors import (
    CommitUnknownError,
    ConfigurationError,
    CoordinationError,
    SupersededError,
)

FINISHED = 0
USAGE = 2
PEER_LOST = 69  # EX_UNAVAILABLE
PREEMPTED = 75  # EX_TEMPFAIL
PREEMPTED_UNSAVED = 76
SUPERSEDED = 77  # EX_NOPERM
CONFIGURATION = 78  # EX_CONFIG
NOT_EXECUTABLE = 126
NOT_FOUND = 127

# After these the job is worth another try, for which nobody is to blame.
RETRY = (PEER_LOST, PREEMPTED, PREEMPTED_UNSAVED)
# Set to "1" for workers whose exceptions are to become exit codes.
VARIABLE = "DISTCKPT_EXIT_CODES"

MEANINGS = {
    FINISHED: "finished",
    USAGE: "wrong usage; starting it again is useless",
    PEER_LOST: "another worker was lost or never came; start the job again",
    PREEMPTED: "preempted, after all workers had saved; start the job again",
    PREEMPTED_UNSAVED: "preempted before it could save; start again from the last checkpoint",
    SUPERSEDED: "another process has taken over the checkpoint directory",
    CONFIGURATION: "the set-up is wrong; starting it again is useless",
    NOT_EXECUTABLE: "the command cannot be executed",
    NOT_FOUND: "the command was not found",
}

_PEERS = (CoordinationError, CommitUnknownError)
# What TensorFlow's collectives raise when another worker has gone.
_PEERS_IN_TENSORFLOW = {"UnavailableError", "AbortedError"}
_TENSORFLOW_ERRORS = "tensorflow.python.framework.errors_impl"


def of(error: BaseException) -> int:
    """Returns the exit code for an exception that nobody has caught.

    The causes of the exception count, too: programs wrap what they have caught.
    """
    for one in _causes(error):
        if isinstance(one, SupersededError):
            return SUPERSEDED
        if isinstance(one, ConfigurationError):
            return CONFIGURATION
        if isinstance(one, _PEERS) or _is_of_tensorflow(one):
            return PEER_LOST
    return 1


def install() -> None:
    """Lets exceptions that nobody catches end this process with the code that `of` gives.

    The traceback is printed as before. Called when distckpt is imported and the environment has
    ``DISTCKPT_EXIT_CODES=1``, as ``distckpt launch`` sets it in pods. May be repeated.
    """
    if sys.excepthook is not _hook:
        global _before
        _before = sys.excepthook
        sys.excepthook = _hook


_before = sys.__excepthook__


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _before(kind, error, trace)
    code = of(error)
    if code != 1 and isinstance(error, Exception):
        raise SystemExit(code)  # the interpreter takes it from a hook as from anywhere


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the exception and what led to it, the nearest first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _is_of_tensorflow(error: BaseException) -> bool:
    return any(
        kind.__module__ == _TENSORFLOW_ERRORS and kind.__name__ in _PEERS_IN_TENSORFLOW
        for kind in type(error).__mro__
    )
