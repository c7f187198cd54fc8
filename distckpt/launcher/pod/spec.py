"""What to run in a pod: `PodSpec`, which checks itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from distckpt.errors import ConfigurationError
from distckpt.launcher.spec import check_command, check_count, check_seconds, check_variable

PORT = 2222


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodSpec:
    """The worker of a pod, and what the scheduler does not provide about its job.

    Attributes:
      command: The program and its arguments; the program is looked up on PATH.
      replicas: Number of workers of the job; None if the scheduler provides it (``TF_CONFIG``,
        Slurm).
      service: The headless Service (Kubernetes: ``subdomain``) through which pods find each other.
      port: The port of each worker's TensorFlow; on a node with several, that of the first.
      peer_deadline: Seconds to wait for all other workers.
      grace: Seconds that the worker has to end after SIGTERM, before SIGKILL.
      env: Variables for the worker, in addition to those of this process.

    Raises:
      ConfigurationError: A value makes no sense; the text says which.
    """

    command: Sequence[str]
    replicas: int | None = None
    service: str | None = None
    port: int = PORT
    peer_deadline: float = 600.0
    grace: float = 30.0
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_command(self.command)
        if self.replicas is not None:
            check_count("replicas", self.replicas, 1)
        check_count("port", self.port, 1)
        if self.port > 65535:
            raise ConfigurationError(f"port must be at most 65535, got {self.port}.")
        check_seconds("peer_deadline", self.peer_deadline)
        check_seconds("grace", self.grace)
        for name, value in self.env.items():
            check_variable(name, value)
        object.__setattr__(self, "command", tuple(self.command))
        object.__setattr__(self, "env", dict(self.env))
