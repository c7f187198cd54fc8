"""What to run in a pod: `PodSpec`, which checks itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from distckpt.errors import ConfigurationError
from distckpt.launcher.spec import check_command, check_count, check_seconds, check_variable

PORT = 2222


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodSpec:
    """The worker of a pod, and what the scheduler does not say about its job.

    Attributes:
      command: The program and its arguments; the program is looked up on PATH.
      replicas: Number of workers of the job. None where the scheduler says it (``TF_CONFIG``,
        Slurm).
      service: The headless Service (Kubernetes: ``subdomain``) by which pods find each other.
      port: Where each worker's TensorFlow listens; on a node with several, the first one's.
      peer_deadline: Seconds until all workers must have come.
      grace: Seconds that the worker has to end after SIGTERM, before SIGKILL.
      env: Variables for the worker on top of those of this process.

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
