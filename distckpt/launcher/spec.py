"""What to launch: `LaunchSpec`, which checks itself."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

from distckpt.arguments import is_integer, is_number
from distckpt.errors import ConfigurationError
from distckpt.launcher.tasks import RESERVED_VARIABLES


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchSpec:
    """A local cluster to run, and what to do when it fails.

    Attributes:
      command: The program of every worker and its arguments; the program is looked up on PATH.
      workers: Number of processes, at least 1, the chief included.
      chief: Whether the first process is TensorFlow's task "chief" 0 and the others are workers
        0 to `workers` - 2. Default: all are workers.
      max_restarts: How many times the whole cluster is restarted after the death of a worker.
      log_dir: Directory for each worker's output, created if absent; None for no files.
      env: Variables for every worker, in addition to those of this process.
      grace: Seconds that the workers have to end after a signal to the launcher, before SIGKILL.
      stop_grace: Seconds that the other workers have between SIGTERM and SIGKILL after a death.
      least: When workers are lost, restart with the remaining ones if there are at least this many
        (see `distckpt.launcher.elastic`). None: always start as many as before.
      elastic_wait: Seconds to wait before a restart with fewer workers.

    Raises:
      ConfigurationError: A value makes no sense; the text says which.
    """

    command: Sequence[str]
    workers: int
    chief: bool = False
    max_restarts: int = 0
    log_dir: str | os.PathLike[str] | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    grace: float = 30.0
    stop_grace: float = 5.0
    least: int | None = None
    elastic_wait: float = 0.0

    def __post_init__(self) -> None:
        check_command(self.command)
        check_count("workers", self.workers, 1)
        check_count("max_restarts", self.max_restarts, 0)
        check_seconds("grace", self.grace)
        check_seconds("stop_grace", self.stop_grace)
        check_seconds("elastic_wait", self.elastic_wait)
        if self.least is not None:
            check_count("least", self.least, 1)
            if self.least > self.workers:
                raise ConfigurationError(
                    f"least must not exceed workers, which is {self.workers}; got {self.least}."
                )
        for name, value in self.env.items():
            check_variable(name, value)
        # Frozen copies: what was checked is what will run.
        object.__setattr__(self, "command", tuple(self.command))
        object.__setattr__(self, "env", dict(self.env))


def check_seconds(name: str, value: float) -> None:
    """Raises ConfigurationError unless `value` is a finite number of seconds, 0 or more."""
    if not is_number(value) or not 0 <= value < math.inf:
        raise ConfigurationError(
            f"{name} must be a finite number of seconds, 0 or more, got {value!r}."
        )


def check_command(command: Sequence[str]) -> None:
    """Raises ConfigurationError unless `command` is a program and its arguments."""
    if isinstance(command, (str, bytes)):
        raise ConfigurationError(
            f"command must be a list of arguments such as ['python', 'train.py'], got {command!r}."
        )
    if not command or not command[0]:
        raise ConfigurationError("There is no command to run.")
    if not all(isinstance(word, str) and "\0" not in word for word in command):
        raise ConfigurationError(
            f"command must be made of strings without NUL characters, got {list(command)!r}."
        )


def check_count(name: str, value: int, least: int) -> None:
    """Raises ConfigurationError unless `value` is a whole number, `least` or more."""
    if not is_integer(value) or value < least:
        raise ConfigurationError(f"{name} must be a whole number, {least} or more, got {value!r}.")


def check_variable(name: str, value: str) -> None:
    """Raises ConfigurationError unless the variable may be set for a worker."""
    if name in RESERVED_VARIABLES:
        raise ConfigurationError(f"{name} is set by the launcher, differently for each worker.")
    if not name or "=" in name or "\0" in f"{name}{value}":
        raise ConfigurationError(f"{name!r}={value!r} cannot be an environment variable.")
