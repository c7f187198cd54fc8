"""Options of a manager: what `ManagerOptions` takes, with defaults, units and checks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from distckpt.arguments import is_integer, is_number
from distckpt.core.worker_states import WorkerStates
from distckpt.errors import ConfigurationError
from distckpt.events import Listener
from distckpt.keep import KeepPolicy
from distckpt.policies import SavePolicy

RequireMatch = Literal["off", "some", "all"]
WhenBusy = Literal["wait", "skip"]
CheckReplicas = Literal["off", "warn", "error"]
OnResize = Literal["redivide", "drop", "error"]
Writer = Literal["distckpt", "tensorflow"]

_WORDS = {
    "writer": get_args(Writer),
    "when_busy": get_args(WhenBusy),
    "check_replicas": get_args(CheckReplicas),
    "require_match": get_args(RequireMatch),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManagerOptions:
    """The options of a `CheckpointManager` that `tf.train.CheckpointManager` does not have.

    Give all workers the same options.

    Attributes:
      save_deadline: Seconds that a save may take, from the moment a worker calls ``save()``. After
        that, `DeadlineExceededError` names the missing workers. Default: 600.
      restore_deadline: The same for one attempt to restore one checkpoint. Default: 600.
      slow_factor: The largest extension of a deadline, as a factor, while all missing workers are
        slow but still make progress. With 3.0, a save may take three times `save_deadline`, and a
        warning says so. With 1.0 no deadline is extended. Default: 3.0.
      durable: Whether files are forced to stable storage (fsync) before the commit. With False, as
        in TensorFlow itself, a power failure may destroy the newest checkpoints; the death of a
        process does not. Default: True.
      verify_on_restore: Whether every byte is checked against its checksum before anything is
        restored (each worker checks its share). With False, only the index and the presence and
        size of files are checked, and TensorFlow checks what it reads. Default: True.
      require_match: How much of the program's state a checkpoint must have to be restored. "some":
        a value for at least one of the variables (or tables, iterators); a checkpoint without any
        is of another model, or the model was renamed. "all": a value for each. Otherwise nothing is
        restored, and all workers raise `RestoreError`. Objects that do not exist yet, e.g. the
        variables of a layer that has not been built, do not count. Default: "off"; a warning names
        what does not match.
      enable_async: Whether ``save()`` returns as soon as the state is held, while a background
        thread does the rest. ``save(options=tf.train.CheckpointOptions(enable_async=True))``
        requests it for one save. Default: False.
      when_busy: What an asynchronous ``save()`` does while the previous save is in flight. "wait":
        it waits for that save. "skip": it returns None on all workers, and
        `CheckpointManager.skipped_saves` counts it. Default: "wait".
      save_policy: Which calls of ``save()`` save, see `distckpt.policies`; the others return None.
        Without a ``step_counter``, calls count as steps. Default: None; all calls save.
      keep: What to keep besides the `max_to_keep` newest checkpoints, see `distckpt.keep`. With
        ``max_to_keep=None`` the policy alone decides. Default: None; nothing else.
      write_threads: How many parts of a worker's share are written at the same time. A share of
        less than 128 MiB is one part; each part is a file. `check_replicas` computes as many
        checksums at the same time. Default: 4.
      writer: What writes the data files. "distckpt": its own writer, which takes less time and
        memory; it leaves to TensorFlow's op ``SaveV2`` what only that can write (to a URL, or the
        state of a `tf.data` iterator). "tensorflow": ``SaveV2`` writes everything. The files are
        the same, byte for byte. Default: "distckpt".
      check_replicas: Whether each save compares, by checksums, the values that should be equal on
        all workers. A report of a difference names the variable, the workers and the step. "warn":
        the report is a warning. "error": it is a `ReplicaMismatchError`, and nothing is saved. Each
        worker reads all of its variables for the comparison. Default: "off".
      check_replicas_every: With n, `check_replicas` compares every n-th entry, beginning with a
        different one in each save, so that n saves compare all entries. Default: 1.
      worker_state_on_resize: How the states in ``worker_checkpoint`` are restored when the number
        of workers has changed. "redivide": objects whose state is the same on all workers and valid
        for any number of them (`IndexedInput`, and objects with an attribute ``elastic = True``)
        continue; all others start afresh, and a warning names them. "drop": all start afresh.
        "error": nothing is restored. Or a function, called on every worker with a `WorkerStates`,
        which decides what to restore. Default: "redivide".
      listeners: Functions called with each event, see `distckpt.events`, on a separate thread;
        `distckpt.listeners` has some. No listener can disturb saving. Default: none.
    """

    save_deadline: float = 600.0
    restore_deadline: float = 600.0
    slow_factor: float = 3.0
    durable: bool = True
    verify_on_restore: bool = True
    require_match: RequireMatch = "off"
    enable_async: bool = False
    when_busy: WhenBusy = "wait"
    save_policy: SavePolicy | None = None
    keep: KeepPolicy | None = None
    # Measured with 1 GiB on 2 cores, with flushing: 4 threads are 1.8 times as fast as one and 1.2
    # times as fast as 2, since some wait for the disk while others compute.
    write_threads: int = 4
    writer: Writer = "distckpt"
    check_replicas: CheckReplicas = "off"
    check_replicas_every: int = 1
    worker_state_on_resize: OnResize | Callable[[WorkerStates], None] = "redivide"
    listeners: Sequence[Listener] = ()

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_words()
        self._check_policies()
        if not isinstance(self.listeners, Sequence) or not all(map(callable, self.listeners)):
            raise ConfigurationError(
                "ManagerOptions.listeners must be a list of functions that take an event, "
                f"got {self.listeners!r}."
            )
        object.__setattr__(self, "listeners", tuple(self.listeners))

    def _check_numbers(self) -> None:
        for name in ("save_deadline", "restore_deadline"):
            value = getattr(self, name)
            if not is_number(value) or not value > 0 or math.isinf(value):
                raise _wrong(name, "a positive, finite number of seconds", value)
        if not is_number(self.slow_factor) or not 1.0 <= self.slow_factor < math.inf:
            raise _wrong("slow_factor", "a finite number, 1.0 or more", self.slow_factor)
        for name in ("write_threads", "check_replicas_every"):
            count = getattr(self, name)
            if not is_integer(count) or count < 1:
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
        if on_resize not in get_args(OnResize) and not callable(on_resize):
            allowed = '"redivide", "drop", "error" or a function'
            raise _wrong("worker_state_on_resize", allowed, on_resize)

    def _check_policies(self) -> None:
        if self.save_policy is not None and not isinstance(self.save_policy, SavePolicy):
            raise ConfigurationError(
                "ManagerOptions.save_policy must be a policy of distckpt.policies, e.g. "
                f"EverySteps(100), or None; got {self.save_policy!r}."
            )
        if self.keep is not None and not isinstance(self.keep, KeepPolicy):
            raise ConfigurationError(
                "ManagerOptions.keep must be a policy of distckpt.keep, e.g. EverySteps(1000), "
                f"or None; got {self.keep!r}."
            )


def _wrong(name: str, allowed: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"ManagerOptions.{name} must be {allowed}, got {value!r}.")
