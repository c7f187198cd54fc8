"""Every error distckpt raises on purpose.

    DistckptError
    ├── ConfigurationError (ValueError)      the call or the set-up is wrong; retrying is useless
    │   ├── DirectoryError                   the directory is unusable
    │   │   ├── DirectoryInUseError          a job may be saving there: stop it first
    │   │   └── DirectoryNotSharedError      a worker does not see what the chief wrote there
    │   ├── UnsupportedOptionError           an option that cannot be honoured here
    │   └── StateMismatchError               the workers' models, steps or directories differ
    ├── CoordinationError                    the workers could not agree
    │   ├── DeadlineExceededError (TimeoutError)   a worker is late; the text names it
    │   └── WorkerLostError                  a worker died; the text names it
    ├── SaveFailedError                      not committed; last checkpoint unchanged: save again
    │   ├── StorageFullError                 no space left on some worker's storage
    │   └── DirectoryClearedError            the directory was cleared or moved while in use
    ├── ReplicaMismatchError                 replicas differ between workers: restart
    ├── CommitUnknownError                   the chief died while committing: look before you retry
    ├── SupersededError                      another process has taken over the directory
    └── RestoreError                         no checkpoint could be restored
        └── CheckpointDamagedError           a checkpoint's files are not what its manifest says
            └── ManifestError                a manifest is damaged, too new, or unsafe

The class tells what to do next: fix the set-up, look at the named workers, call ``save()`` again,
or read the directory first. "Not committed" and "unknown" are different errors, like pyiceberg's
``CommitFailedException`` and ``CommitStateUnknownException``.

Errors travel between workers as `Failure` (plain data); `Failure.to_error` builds the same error on
every worker.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
from typing import Any


class DistckptError(Exception):
    """Base of all errors raised on purpose by distckpt.

    Attributes:
      worker: Index of the worker where the error happened, or None.
      trace: The traceback on that worker as text, or "". On other workers the error also has it as
        a note, which Python prints (3.11 and later).
    """

    worker: int | None = None
    trace: str = ""


class ConfigurationError(DistckptError, ValueError):
    """The call or the set-up is wrong; the same call will fail again."""


class DirectoryError(ConfigurationError):
    """The checkpoint directory is a file, cannot be created, or cannot be written."""


class DirectoryInUseError(DirectoryError):
    """The directory cannot be changed: a job may still be saving there."""


class DirectoryNotSharedError(DirectoryError):
    """A worker does not see a file that the chief has just written."""


class UnsupportedOptionError(ConfigurationError):
    """An option cannot be honoured in this situation."""


class StateMismatchError(ConfigurationError):
    """Workers came to the same save with different models, steps, numbers or directories."""


class CoordinationError(DistckptError):
    """The workers could not reach agreement."""


class DeadlineExceededError(CoordinationError, TimeoutError):
    """A worker did not do its part before the deadline; the text names it."""


class WorkerLostError(CoordinationError):
    """A worker died or can no longer be reached; the text names it."""


class SaveFailedError(DistckptError):
    """The save was not committed; the last checkpoint is unchanged. Call ``save()`` again."""


class StorageFullError(SaveFailedError):
    """A worker had no space left to write its shard, or its messages to the other workers."""


class DirectoryClearedError(SaveFailedError):
    """The directory was cleared or moved while this job was using it, and now has no owner.

    This job's checkpoints were deleted or moved. The next ``save()`` takes the directory again.
    """


class ReplicaMismatchError(DistckptError):
    """Values that should be equal on all workers differ; nothing was saved.

    Only with ``ManagerOptions(check_replicas="error")``. The text names variables, workers, step.
    """


class CommitUnknownError(DistckptError):
    """The chief was lost, or took too long, and may have committed the save.

    The manager's next call finds out how the save ended; a new process reads the directory.
    """


class SupersededError(DistckptError):
    """Another process has taken over the directory; this process must no longer write to it.

    It was taken over after this process's last save, or, if there was none, after its restore.

    Attributes:
      successor: The other process: host, process id, time and term; "" if unknown.
    """

    successor: str = ""


class RestoreError(DistckptError):
    """No checkpoint could be restored, or the checkpoint has too little of the program's state."""


class CheckpointDamagedError(RestoreError):
    """The files of a checkpoint are missing, truncated, or differ from their checksums."""


class ManifestError(CheckpointDamagedError):
    """A manifest cannot be trusted: it is damaged, of a newer format, or names foreign files."""


_BY_NAME: dict[str, type[DistckptError]] = {
    cls.__name__: cls
    for cls in (
        DistckptError,
        ConfigurationError,
        DirectoryError,
        DirectoryInUseError,
        DirectoryNotSharedError,
        UnsupportedOptionError,
        StateMismatchError,
        CoordinationError,
        DeadlineExceededError,
        WorkerLostError,
        SaveFailedError,
        StorageFullError,
        DirectoryClearedError,
        ReplicaMismatchError,
        CommitUnknownError,
        SupersededError,
        RestoreError,
        CheckpointDamagedError,
        ManifestError,
    )
}


def named(error: BaseException) -> str:
    """Returns an error's class and text: "ValueError: no such key"; "KeyboardInterrupt"."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def reason(error: BaseException) -> str:
    """Returns why something failed, in words: "No such file or directory", without the file."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON at line {error.lineno}, column {error.colno}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    for kinds, text in _IN_WORDS:
        if isinstance(error, kinds):
            return text
    return str(error).removesuffix(".")


def explain(error: OSError) -> str:
    """Returns the file and the reason of an error: "/run/a: No such file or directory"."""
    why, file = reason(error), str(error.filename or "")
    return why if file in why else f"{file}: {why}"


_IN_WORDS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((UnicodeError,), "it is not UTF-8 text"),
    ((RecursionError,), "it is nested too deeply"),
    ((OverflowError,), "a number is too large"),
    ((TypeError, AttributeError, IndexError), "a value has the wrong type"),
)


@dataclasses.dataclass(frozen=True)
class Failure:
    """An error as plain data, so that it can travel between workers.

    Attributes:
      kind: Name of a class of this module.
      message: The whole text of the error.
      worker: Index of the worker where the error happened, or None.
      trace: The traceback on that worker as text, or "".
      successor: As in `SupersededError`; "" for other errors.
    """

    kind: str
    message: str
    worker: int | None = None
    trace: str = ""
    successor: str = ""

    @classmethod
    def from_exception(cls, error: BaseException, worker: int | None = None) -> Failure:
        """Returns the failure that describes `error`; foreign errors become `SaveFailedError`."""
        known = isinstance(error, DistckptError) and type(error).__name__ in _BY_NAME
        kind = type(error).__name__ if known else SaveFailedError.__name__
        message = str(error) if known else named(error)
        if not isinstance(error, Exception):
            who = "A worker" if worker is None else f"worker {worker}"
            message = f"{who} was interrupted ({message}). Call the method again on all workers."
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        successor = error.successor if isinstance(error, SupersededError) else ""
        return cls(kind, message, worker, trace, successor)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Failure:
        """Returns the failure written by `to_json`."""
        more = (data.get(name, "") for name in ("trace", "successor"))
        return cls(data["kind"], data["message"], data.get("worker"), *more)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for `from_json`."""
        return dataclasses.asdict(self)

    def to_error(self, here: int | None = None) -> DistckptError:
        """Returns the error to raise; the same on every worker.

        Args:
          here: Index of this worker, if it raises the error from its cause. On the worker where
            the error happened, the cause already shows the traceback, and no note is added.
        """
        error = _BY_NAME.get(self.kind, SaveFailedError)(self.message)
        error.worker, error.trace = self.worker, self.trace
        if isinstance(error, SupersededError):
            error.successor = self.successor
        is_elsewhere = here is None or here != self.worker
        if self.trace and is_elsewhere and hasattr(error, "add_note"):
            where = f"worker {self.worker}" if self.worker is not None else "another worker"
            error.add_note(f"On {where}:\n{self.trace.rstrip()}")
        return error
