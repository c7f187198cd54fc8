"""Which worker this process is, from the scheduler's environment variables. Pure.

    TF_CONFIG              Kubeflow's TFJob, Vertex AI, or set by hand: used unchanged; without a
                           cluster it counts as not set
    JOB_COMPLETION_INDEX   Indexed Jobs of Kubernetes, and so JobSets and Kubeflow's TrainJobs;
                           peers are "<job>-<i>.<service>"
    SLURM_PROCID           a task of Slurm's srun
    host name "train-3"    a pod of a StatefulSet; peers are "train-<i>.<service>"

Sources: the Kubernetes documentation, "Indexed Job" and "Job with Pod-to-Pod Communication" (host
names are the Job's name and the index), "StatefulSet" (ordinal, stable network id).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from distckpt.core import tf_config
from distckpt.core.tf_config import TFConfig
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
    """Which worker this process is.

    Attributes:
      name: The name in messages: "worker 1".
      source: Where this information comes from.
      config: The value of ``TF_CONFIG``.
      run_id: An id of this start of the job, the same on all workers and different from other
        starts; None if the scheduler provides none.
    """

    name: str
    source: str
    config: str
    run_id: str | None = None


def find(environ: Mapping[str, str], host: str, spec: PodSpec) -> Identity:
    """Returns which worker this process is.

    Args:
      environ: The environment.
      host: The host's name, without its domain.
      spec: The options of the user.

    Raises:
      ConfigurationError: The information is missing, contradictory or invalid.
    """
    config = tf_config.of(environ)
    if config.cluster:
        return _from_tf_config(config, environ)
    if environ.get(INDEX) and environ.get(RANK):
        raise ConfigurationError(
            f"Both {INDEX} (Kubernetes) and {RANK} (Slurm) are set, and they name different "
            "workers. Unset the stale one."
        )
    if environ.get(INDEX):
        return _from_index(environ[INDEX], host, spec)
    if environ.get(RANK):
        addresses, rank = slurm.addresses(environ, spec.port)
        if spec.replicas not in (None, len(addresses)):
            raise ConfigurationError(
                f"Slurm has started {len(addresses)} tasks, but --replicas (DISTCKPT_WORKERS) is "
                f"{spec.replicas}. Omit it."
            )
        return _identity(addresses, rank, f"Slurm ({RANK})", slurm.run_id(environ))
    match = _NUMBERED.fullmatch(host)
    if match and spec.replicas is not None:
        return _among_pods(match[1], int(match[2]), spec, f"the host name {host!r} (StatefulSet)")
    raise ConfigurationError(
        "Cannot tell which worker of which job this is: there is no TF_CONFIG with a cluster, no "
        f"{INDEX} (Indexed Job), no {RANK} (Slurm), and no --replicas (DISTCKPT_WORKERS) with a "
        f"host name like train-3 (StatefulSet; this is {host!r}). To start N workers on this "
        "machine: distckpt launch --workers N -- …"
    )


def _from_tf_config(config: TFConfig, environ: Mapping[str, str]) -> Identity:
    task, said = config.own_task, environ.get(INDEX)
    if said and config.index is not None and said not in (str(task.number), str(config.index)):
        raise ConfigurationError(
            f"TF_CONFIG says that this is {task.name}, but {INDEX} is {said}. Unset the stale one."
        )
    return Identity(task.name, "TF_CONFIG", environ[tf_config.VARIABLE])


def _from_index(text: str, host: str, spec: PodSpec) -> Identity:
    index = tf_config.decimal(text)
    if index is None:
        raise ConfigurationError(f"{INDEX} must be a number, got {text!r}.")
    if spec.replicas is None:
        raise ConfigurationError(
            f"{INDEX} says that this is worker {index}, but the number of workers is unknown. Set "
            "DISTCKPT_WORKERS in the pod (or --replicas) to the Job's completions."
        )
    match = _NUMBERED.fullmatch(host)
    base = match[1] if match and int(match[2]) == index else None
    if base is None and spec.replicas > 1:
        raise ConfigurationError(
            f"{INDEX} is {index}, but the host name {host!r} does not end in -{index}, so the "
            "names of the other pods are unknown. Let Kubernetes name the pods: "
            "completionMode: Indexed, no hostname in the pod's template."
        )
    return _among_pods(base or host, index, spec, f"an Indexed Job ({INDEX})")


def _among_pods(base: str, index: int, spec: PodSpec, source: str) -> Identity:
    assert spec.replicas is not None
    if index >= spec.replicas:
        raise ConfigurationError(
            f"According to {source}, this is worker {index}, but there are only "
            f"{spec.replicas} (0 to {spec.replicas - 1}). Set DISTCKPT_WORKERS (or --replicas) "
            "to the number of pods."
        )
    if spec.replicas > 1 and not spec.service:
        raise ConfigurationError(
            f"According to {source}, this is worker {index} of {spec.replicas}, but the Service "
            "through which they find each other is unknown. Set DISTCKPT_SERVICE in the pod (or "
            "--service) to the name of the headless Service, which must also be the pod's "
            "subdomain."
        )
    suffix = f".{spec.service}" if spec.service else ""
    hosts = [f"{base}-{n}{suffix}" for n in range(spec.replicas)]
    if spec.replicas == 1:
        hosts = ["localhost"]
    return _identity([f"{name}:{spec.port}" for name in hosts], index, source)


def _identity(addresses: list[str], index: int, source: str, run_id: str | None = None) -> Identity:
    tasks = make_tasks(len(addresses))
    return Identity(tasks[index].name, source, render(tasks, addresses, tasks[index]), run_id)
