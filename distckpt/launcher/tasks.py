"""The tasks of a local cluster, their ``TF_CONFIG``, and each worker's environment. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from distckpt import exit_codes

# Defaults that the environment may override. Python is unbuffered because the last lines before a
# SIGKILL matter most.
DEFAULT_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "PYTHONUNBUFFERED": "1",
    exit_codes.VARIABLE: "1",
}

# Set by the launcher for each worker, so users cannot set them.
RESERVED_VARIABLES = frozenset({"TF_CONFIG", "DISTCKPT_RUN_ID", "DISTCKPT_RESTART"})


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of a TensorFlow cluster.

    Attributes:
      kind: TensorFlow's task type: "worker" or "chief".
      index: Index among the tasks of that type, from 0.
    """

    kind: str
    index: int

    @property
    def name(self) -> str:
        """The name in messages: "worker 1", or "chief" (there is only one)."""
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

    The format is that of ``tf.distribute.cluster_resolver.TFConfigClusterResolver``. Task types
    without tasks are omitted.

    Args:
      tasks: All tasks of the cluster; the tasks of one type are in the order of their index.
      addresses: "host:port" of each of `tasks`.
      task: The task that gets this ``TF_CONFIG``.
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

    Later values win: the defaults, the launcher's own environment, `extra`, and the values set by
    the launcher. A value of None is not set.
    """
    decided = {
        "TF_CONFIG": tf_config,
        "DISTCKPT_RUN_ID": run_id,
        "DISTCKPT_RESTART": None if restart is None else str(restart),
    }
    known = {name: value for name, value in decided.items() if value is not None}
    return {**DEFAULT_ENVIRONMENT, **inherited, **extra, **known}
