"""Who this process is, from what a scheduler says in its environment. Pure.

    TF_CONFIG              Kubeflow, Vertex AI, and whoever sets it by hand: taken as it is
    JOB_COMPLETION_INDEX   Indexed Jobs of Kubernetes, and JobSets; peers are "<job>-<i>.<service>"
    SLURM_PROCID           a task of Slurm's srun
    host name "train-3"    a pod of a StatefulSet; peers are "train-<i>.<service>"

Sources: the Kubernetes documentation, "Indexed Job" and "Job with Pod-to-Pod Communication" (host
names are the Job's name and the index), "StatefulSet" (ordinal, stable network id).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from distckpt.coordination import tf_config
from distckpt.errors import ConfigurationError
from distckpt.launcher.pod import slurm
from distckpt.launcher.pod.spec import PodSpec
from distckpt.launcher.tasks import make_tasks
from distckpt.launcher.tasks import tf_config as render

_NUMBERED = re.compile(r"(.+)-([0-9]{1,9})")
INDEX = "JOB_COMPLETION_INDEX"
RANK = "SLURM_PROCID"


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who this process is.

    Attributes:
      name: What people call it: "worker 1".
      source: What has told it.
      config: The value of ``TF_CONFIG``.
      run_id: What tells this start of the job from others, the same on all workers; None if nothing
        does.
    """

    name: str
    source: str
    config: str
    run_id: str | None = None

    @property
    def cluster(self) -> dict[str, list[str]]:
        """The addresses of all tasks, by job."""
        found: dict[str, list[str]] = json.loads(self.config).get("cluster") or {}
        return found


def find(environ: Mapping[str, str], host: str, spec: PodSpec) -> Identity:
    """Returns who this process is.

    Args:
      environ: The environment.
      host: The host's name, without its domain.
      spec: What the user has said.

    Raises:
      ConfigurationError: Nothing says it, or two say different things, or what is said makes no
        sense.
    """
    if environ.get("TF_CONFIG", "").strip():
        return _from_tf_config(environ)
    if environ.get(INDEX) and environ.get(RANK):
        raise ConfigurationError(
            f"Both {INDEX} (Kubernetes) and {RANK} (Slurm) are set, and each names another worker. "
            "Unset the one that is left over."
        )
    if environ.get(INDEX):
        return _from_index(environ[INDEX], host, spec)
    if environ.get(RANK):
        addresses, rank = slurm.addresses(environ, spec.port)
        if spec.replicas not in (None, len(addresses)):
            raise ConfigurationError(
                f"Slurm has started {len(addresses)} tasks, and --replicas (DISTCKPT_WORKERS) says "
                f"{spec.replicas}. Leave it away."
            )
        return _identity(addresses, rank, f"Slurm ({RANK})", slurm.run_id(environ))
    match = _NUMBERED.fullmatch(host)
    if match and spec.replicas is not None:
        return _among_pods(match[1], int(match[2]), spec, f"the host name {host!r} (StatefulSet)")
    raise ConfigurationError(
        "Nothing says which worker of which job this is: there is no TF_CONFIG, no "
        f"{INDEX} (Indexed Job), no {RANK} (Slurm), and no --replicas (DISTCKPT_WORKERS) with a "
        f"host name like train-3 (StatefulSet; this is {host!r}). To start N workers on this "
        "machine: distckpt launch --workers N -- …"
    )


def _from_tf_config(environ: Mapping[str, str]) -> Identity:
    config = tf_config.parse(environ["TF_CONFIG"])
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise ConfigurationError('TF_CONFIG must have the objects "cluster" and "task".')
    _check_addresses(cluster)
    kind, number = task.get("type"), _whole(task.get("index"))
    is_known = kind == "evaluator" or (
        kind in cluster and number is not None and number < len(cluster[kind])
    )
    if not isinstance(kind, str) or number is None or not is_known:
        count = len(cluster.get(kind, ())) if isinstance(kind, str) else 0
        raise ConfigurationError(
            f"TF_CONFIG says that this is task {task.get('index')!r} of {kind!r}, of which its "
            f"cluster has {count}."
        )
    position = number + (len(cluster.get("chief", ())) if kind == "worker" else 0)
    said = environ.get(INDEX)
    if said and kind in ("chief", "worker") and said not in (str(number), str(position)):
        raise ConfigurationError(
            f"TF_CONFIG says that this is {kind} {number}, and {INDEX} says {said}. Unset the one "
            "that is left over."
        )
    name = kind if kind == "chief" else f"{kind} {number}"
    return Identity(name, "TF_CONFIG", environ["TF_CONFIG"])


def _check_addresses(cluster: dict[str, Any]) -> None:
    for job, addresses in cluster.items():
        if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
            raise ConfigurationError(
                f'TF_CONFIG: the addresses of {job!r} must be a list like ["host:2222"], got '
                f"{addresses!r}."
            )


def _from_index(text: str, host: str, spec: PodSpec) -> Identity:
    index = _whole(text)
    if index is None:
        raise ConfigurationError(f"{INDEX} must be a number, got {text!r}.")
    if spec.replicas is None:
        raise ConfigurationError(
            f"{INDEX} says that this is worker {index}, and nothing says of how many. Set "
            "DISTCKPT_WORKERS in the pod (or --replicas) to the Job's completions."
        )
    match = _NUMBERED.fullmatch(host)
    base = match[1] if match and int(match[2]) == index else None
    if base is None and spec.replicas > 1:
        raise ConfigurationError(
            f"{INDEX} is {index}, and the host name {host!r} does not end in -{index}, so the "
            "names of the other pods cannot be told. Let Kubernetes name the pods: "
            "completionMode: Indexed, no hostname in the pod's template."
        )
    return _among_pods(base or host, index, spec, f"an Indexed Job ({INDEX})")


def _among_pods(base: str, index: int, spec: PodSpec, source: str) -> Identity:
    assert spec.replicas is not None
    if index >= spec.replicas:
        raise ConfigurationError(
            f"By {source} this is worker {index}, and there are only {spec.replicas} (0 to "
            f"{spec.replicas - 1}). Set DISTCKPT_WORKERS (or --replicas) to the number of pods."
        )
    if spec.replicas > 1 and not spec.service:
        raise ConfigurationError(
            f"By {source} this is worker {index} of {spec.replicas}, and nothing says by which "
            "Service they find each other. Set DISTCKPT_SERVICE in the pod (or --service) to the "
            "name of the headless Service, which must also be the pod's subdomain."
        )
    suffix = f".{spec.service}" if spec.service else ""
    hosts = [f"{base}-{n}{suffix}" for n in range(spec.replicas)]
    if spec.replicas == 1:
        hosts = ["localhost"]
    return _identity([f"{name}:{spec.port}" for name in hosts], index, source)


def _identity(addresses: list[str], index: int, source: str, run_id: str | None = None) -> Identity:
    tasks = make_tasks(len(addresses))
    return Identity(tasks[index].name, source, render(tasks, addresses, tasks[index]), run_id)


def _whole(value: Any) -> int | None:
    """Returns a number that is given as one, or as text; None if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    text = value if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
