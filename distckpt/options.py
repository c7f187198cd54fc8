"""Options of a manager: what `ManagerOptions` takes, with defaults, units and checks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from distckpt.core.worker_states import WorkerStates
from distckpt.errors import ConfigurationError
from distckpt.events import Listener
from distckpt.keep import KeepPolicy
from distckpt.policies import SavePolicy

_WORDS = {"when_busy": ("wait", "skip"), "check_replicas": ("off", "warn", "error")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManagerOptions:
    """How a `CheckpointManager` behaves beyond what `tf.train.CheckpointManager` knows.

    Give all workers the same options.

    Attributes:
      save_deadline: Seconds that a save may take, from the moment a worker calls ``save()``. Then
        `DeadlineExceededError` names the workers that are missing. Default: 600.
      restore_deadline: The same for one attempt to restore one checkpoint. Default: 600.
      slow_factor: By how much a deadline is extended at the most, while all workers that are waited
        for are slow but still make progress: with 3.0, a save may take three times
        `save_deadline`. A warning says so. With 1.0 no deadline is extended. Default: 3.0.
      durable: Whether files are forced to stable storage (fsync) before the commit. With False, as
        in TensorFlow itself, a power failure may take the newest checkpoints with it; a process
        that dies takes nothing. Default: True.
      verify_on_restore: Whether every byte is checked against its checksum before anything is
        restored (each worker checks its share). With False only the presence and size of files
        and the index are checked, and TensorFlow checks what it happens to read. Default: True.
      enable_async: Whether ``save()`` returns as soon as the state is held, and a thread in the
        background does the rest. ``save(options=tf.train.CheckpointOptions(enable_async=True))``
        asks for it once. Default: False.
      when_busy: What an asynchronous ``save()`` does while the one before is in flight: "wait" for
        it, or "skip": return None, on all workers alike, and count it
        (`CheckpointManager.skipped_saves`). Default: "wait".
      save_policy: Which calls of ``save()`` save, see `distckpt.policies`; the others return None.
        Without a ``step_counter`` the calls are counted as steps. Default: None, all save.
      keep: What to keep beside the `max_to_keep` newest checkpoints, see `distckpt.keep`. With
        ``max_to_keep=None`` it alone decides. Default: None, nothing else.
      write_threads: How many parts of a worker's share are written at the same time. A share of
        less than 128 MiB is one part; each part is a file. Default: 4.
      check_replicas: Whether each save compares, by checksums, what the workers hold of what they
        should hold alike. A difference names the variable, the workers and the step: "warn", and it
        is saved all the same; or "error" (`ReplicaMismatchError`), and nothing is saved. Each
        worker reads all of its variables for that. Default: "off".
      check_replicas_every: With `check_replicas`, a save compares one entry in so many, the next
        save others: all in so many saves. Default: 1.
      worker_state_on_resize: What becomes of the states in ``worker_checkpoint`` when the number of
        workers has changed. "redivide": objects whose state is the same on all workers and right
        for any number of them (`IndexedInput`, and whatever else has an attribute ``elastic =
        True``) go on where they were; all others begin anew, and a warning names them. "drop": all
        begin anew. "error": nothing is restored. Or a function, called on every worker with a
        `WorkerStates`, which restores what it wants to. Default: "redivide".
      listeners: Functions that are called with each event, see `distckpt.events`, on a thread of
        their own; `distckpt.listeners` has some. Whatever they do, saving goes on. Default: none.
    """

    save_deadline: float = 600.0
    restore_deadline: float = 600.0
    slow_factor: float = 3.0
    durable: bool = True
    verify_on_restore: bool = True
    enable_async: bool = False
    when_busy: str = "wait"
    save_policy: SavePolicy | None = None
    keep: KeepPolicy | None = None
    write_threads: int = 4
    check_replicas: str = "off"
    check_replicas_every: int = 1
    worker_state_on_resize: str | Callable[[WorkerStates], None] = "redivide"
    listeners: Sequence[Listener] = ()

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_words()
        self._check_policies()
        if not _are_functions(self.listeners):
            raise ConfigurationError(
                "ManagerOptions.listeners must be a list of functions that take an event, "
                f"got {self.listeners!r}."
            )
        object.__setattr__(self, "listeners", tuple(self.listeners))

    def _check_numbers(self) -> None:
        for name in ("save_deadline", "restore_deadline"):
            value = getattr(self, name)
            if not _is_number(value) or not value > 0 or math.isinf(value):
                raise _wrong(name, "a positive, finite number of seconds", value)
        if not _is_number(self.slow_factor) or not 1.0 <= self.slow_factor < math.inf:
            raise _wrong("slow_factor", "a finite number, 1.0 or more", self.slow_factor)
        for name in ("write_threads", "check_replicas_every"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise _wrong(name, "a positive integer", count)

    def _check_words(self) -> None:
        for name in ("durable", "verify_on_restore", "enable_async"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, "True or False", getattr(self, name))
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                allowed = " or ".join(f'"{word}"' for word in words)
                raise _wrong(name, allowed, getattr(self, name))
        on_resize = self.worker_state_on_resize
        if on_resize not in ("redivide", "drop", "error") and not callable(on_resize):
            allowed = '"redivide", "drop", "error" or a function'
            raise _wrong("worker_state_on_resize", allowed, on_resize)

    def _check_policies(self) -> None:
        if self.save_policy is not None and not isinstance(self.save_policy, SavePolicy):
            raise ConfigurationError(
                "ManagerOptions.save_policy must be one of distckpt.policies, e.g. "
                f"EverySteps(100), or None; got {self.save_policy!r}."
            )
        if self.keep is not None and not isinstance(self.keep, KeepPolicy):
            raise ConfigurationError(
                "ManagerOptions.keep must be one of distckpt.keep, e.g. EverySteps(1000), or None; "
                f"got {self.keep!r}."
            )


def _wrong(name: str, allowed: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"ManagerOptions.{name} must be {allowed}, got {value!r}.")


def _are_functions(value: object) -> bool:
    return isinstance(value, Sequence) and all(map(callable, value))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
