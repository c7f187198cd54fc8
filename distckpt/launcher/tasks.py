"""Who is who in a local cluster: tasks, ``TF_CONFIG``, and each worker's environment. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from distckpt import exit_codes

# What a worker gets unless the environment says otherwise. Unbuffered Python, because the last
# lines before a SIGKILL are the ones people look for.
DEFAULT_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "PYTHONUNBUFFERED": "1",
    exit_codes.VARIABLE: "1",
}

# Set by the launcher for each worker, so nobody else may.
RESERVED_VARIABLES = frozenset({"TF_CONFIG", "DISTCKPT_RUN_ID", "DISTCKPT_RESTART"})


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of a TensorFlow cluster.

    Attributes:
      kind: Task type in TensorFlow's words: "worker" or "chief".
      index: Index among the tasks of that type, from 0.
    """

    kind: str
    index: int

    @property
    def name(self) -> str:
        """What people call it: "worker 1", or "chief" (there is only one)."""
        return self.kind if self.kind == "chief" else f"{self.kind} {self.index}"

    @property
    def slug(self) -> str:
        """The name as part of a file name: "worker-1"."""
        return self.name.replace(" ", "-")


def make_tasks(workers: int, chief: bool = False) -> tuple[Task, ...]:
    """Returns the tasks of `workers` processes; with `chief`, the first one is the chief."""
    if not chief:
        return tuple(Task("worker", index) for index in range(workers))
    return (Task("chief", 0), *(Task("worker", index) for index in range(workers - 1)))


def tf_config(tasks: Sequence[Task], addresses: Sequence[str], task: Task) -> str:
    """Returns the ``TF_CONFIG`` of `task`, as JSON.

    The format is that of ``tf.distribute.cluster_resolver.TFConfigClusterResolver``. A task type
    without tasks is left out.

    Args:
      tasks: All tasks of the cluster, those of one type in the order of their index.
      addresses: "host:port" of each of `tasks`.
      task: The one it is for.
    """
    cluster: dict[str, list[str]] = {}
    for each, address in zip(tasks, addresses, strict=True):
        cluster.setdefault(each.kind, []).append(address)
    return json.dumps({"cluster": cluster, "task": {"type": task.kind, "index": task.index}})


def worker_environment(
    inherited: Mapping[str, str],
    extra: Mapping[str, str],
    *,
    tf_config: str,
    run_id: str | None,
    restart: int | None,
) -> dict[str, str]:
    """Returns the whole environment of one worker.

    Later ones win: our defaults, what the launcher inherited, `extra`, what the launcher decides;
    what it does not know (None), it does not set.
    """
    decided = {
        "TF_CONFIG": tf_config,
        "DISTCKPT_RUN_ID": run_id,
        "DISTCKPT_RESTART": None if restart is None else str(restart),
    }
    known = {name: value for name, value in decided.items() if value is not None}
    return {**DEFAULT_ENVIRONMENT, **inherited, **extra, **known}
