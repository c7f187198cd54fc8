"""Exit codes that tell a scheduler whether to start a job again.

Kubernetes' podFailurePolicy, a Slurm script or a shell loop sees only the exit code of a process.
``distckpt launch`` ends with these codes; so do the workers that it starts in a pod when an
exception ends the program (`install`). The numbers follow BSD's ``sysexits.h`` where it has a
suitable one.

`preemption.handler` and `launcher.supervisor` also choose among these codes: when a job is
preempted, and when a worker of a job on one machine has ended.

Nothing here needs TensorFlow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
STALLED = 70  # EX_SOFTWARE
PREEMPTED = 75  # EX_TEMPFAIL
PREEMPTED_UNSAVED = 76
SUPERSEDED = 77  # EX_NOPERM
CONFIGURATION = 78  # EX_CONFIG
NOT_EXECUTABLE = 126
NOT_FOUND = 127

# After these codes the job should be started again; the program is not to blame.
RETRY = (PEER_LOST, PREEMPTED, PREEMPTED_UNSAVED)
# A worker that ends with one of these did not fail itself.
BECAUSE_OF_OTHERS = (*RETRY, STALLED)
# If this variable is "1", uncaught exceptions of a worker become exit codes.
VARIABLE = "DISTCKPT_EXIT_CODES"

MEANINGS = {
    FINISHED: "finished",
    USAGE: "wrong usage; starting it again is useless",
    PEER_LOST: "another worker was lost or never came; start the job again",
    STALLED: "a worker was lost or never came, again, and nothing was committed in between",
    PREEMPTED: "preempted, after all workers had saved; start the job again",
    PREEMPTED_UNSAVED: "preempted before it could save; start again from the last checkpoint",
    SUPERSEDED: "another process has taken over the checkpoint directory",
    CONFIGURATION: "the set-up is wrong; starting it again is useless",
    NOT_EXECUTABLE: "the command cannot be executed",
    NOT_FOUND: "the command was not found",
}

_PEERS = (CoordinationError, CommitUnknownError)
# TensorFlow's collectives raise these when another worker is lost.
_PEERS_IN_TENSORFLOW = {"UnavailableError", "AbortedError"}
_TENSORFLOW_ERRORS = "tensorflow.python.framework.errors_impl"


def of(error: BaseException) -> int:
    """Returns the exit code for an uncaught exception.

    The causes of the exception count, too, because programs wrap exceptions. The result is never
    `STALLED`, which an exception alone does not show.
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
    """Makes an uncaught exception end this process with the code from `of`.

    The traceback is printed as before. Importing distckpt calls this if the environment has
    ``DISTCKPT_EXIT_CODES=1``, which ``distckpt launch`` sets in pods. May be called repeatedly.
    """
    if sys.excepthook is not _hook:
        global _before
        _before = sys.excepthook
        sys.excepthook = _hook


def judge_by(comes_to_nothing: Callable[[], bool]) -> None:
    """Sets the function that tells whether the job committed nothing since it last lost a worker.

    Managers call this. The function is asked when an uncaught exception is about to end this
    process because a worker was lost; if it returns True, the exit code is `STALLED`.
    """
    global _comes_to_nothing
    _comes_to_nothing = comes_to_nothing


def _has_no_manager() -> bool:
    return False  # nothing is known of the job


_comes_to_nothing: Callable[[], bool] = _has_no_manager
_before = sys.__excepthook__


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _before(kind, error, trace)
    code = of(error)
    if code == 1 or not isinstance(error, Exception):
        return
    if code == PEER_LOST and _comes_to_nothing():
        code = STALLED
    raise SystemExit(code)  # the interpreter honours this in a hook, too


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the exception and its causes, the nearest first."""
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
