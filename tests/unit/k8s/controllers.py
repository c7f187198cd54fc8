"""What controllers make of our manifests: Kubeflow Trainer a JobSet, JobSet a Job, Kubernetes pods.

As far as it concerns the workers: their number, their names, their command and their variables.
Sources: Trainer 2.3 (torch and jobset in pkg/runtime/framework/plugins), JobSet 0.12 (constructJob
in pkg/controllers/jobset_controller.go), and the Kubernetes documentation, "Indexed Job" and
"Define Dependent Environment Variables".
"""

from __future__ import annotations

import copy
import dataclasses
import re

ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
JOB_SET = "jobset.sigs.k8s.io/jobset-name"


@dataclasses.dataclass(frozen=True)
class Container:
    """The worker of a pod, as Kubernetes starts it.

    Attributes:
      host: The host name.
      address: The name by which other pods find it.
      command: The command line, with all variables replaced.
      variables: The environment.
    """

    host: str
    address: str
    command: list[str]
    variables: dict[str, str]


def job_set(runtime, train_job):
    """Returns the JobSet that Trainer makes of a runtime and a TrainJob."""
    name, trainer = train_job["metadata"]["name"], train_job["spec"].get("trainer")
    spec = copy.deepcopy(runtime["spec"]["template"]["spec"])
    policy = runtime["spec"].get("mlPolicy", {})
    (replicated,) = spec["replicatedJobs"]
    assert replicated["template"]["metadata"]["labels"][ANCESTOR] == "trainer"
    count = (trainer or {}).get("numNodes") or policy.get("numNodes", 1)
    replicated["template"]["spec"] |= {"completions": count, "parallelism": count}
    pods = replicated["template"]["spec"]["template"]["spec"]
    (node,) = [container for container in pods["containers"] if container["name"] == "node"]
    node |= {key: trainer[key] for key in ("image", "command", "args") if key in (trainer or {})}
    if trainer is not None and "torch" in policy:
        index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        node["env"] += [
            *trainer.get("env", ()),
            {"name": "PET_NNODES", "value": str(count)},
            {"name": "PET_NPROC_PER_NODE", "value": "1"},
            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": index}}},
            {"name": "PET_MASTER_ADDR", "value": f"{name}-node-0-0.{name}"},
            {"name": "PET_MASTER_PORT", "value": "29500"},
        ]
        node["ports"].append({"containerPort": 29500})
    metadata = {"name": name}
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "metadata": metadata, "spec": spec} | {
        "kind": "JobSet"
    }


def job(found):
    """Returns the one Job that JobSet makes of a JobSet."""
    name, (replicated,) = found["metadata"]["name"], found["spec"]["replicatedJobs"]
    made = copy.deepcopy(replicated["template"])
    network = found["spec"].get("network", {})
    template = made["spec"]["template"]
    template.setdefault("metadata", {}).setdefault("labels", {})[JOB_SET] = name
    if network.get("enableDNSHostnames", True):
        template["spec"]["subdomain"] = network.get("subdomain", name)
    made |= {"apiVersion": "batch/v1", "kind": "Job"}
    made.setdefault("metadata", {})["name"] = f"{name}-{replicated['name']}-0"
    return made


def containers(found):
    """Returns the first container of each pod that Kubernetes makes of an Indexed Job."""
    name, template = found["metadata"]["name"], found["spec"]["template"]
    return [_container(f"{name}-{i}", i, template) for i in range(found["spec"]["completions"])]


def variables(container, labels, index):
    """Returns the environment of a container of pod `index`."""
    fields = {f"metadata.labels['{name}']": value for name, value in labels.items()}
    fields["metadata.annotations['batch.kubernetes.io/job-completion-index']"] = str(index)
    found = {
        variable["name"]: fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        if "valueFrom" in variable
        else variable["value"]
        for variable in container.get("env", ())
    }
    return found | {"JOB_COMPLETION_INDEX": str(index)}


def expand(words, environment):
    """Returns a command line in which each $(NAME) of a variable is replaced."""
    return [re.sub(r"\$\((\w+)\)", lambda m: environment.get(m[1], m[0]), word) for word in words]


def _container(host, index, template):
    container = template["spec"]["containers"][0]
    environment = variables(container, template["metadata"]["labels"], index)
    command = expand([*container["command"], *container.get("args", ())], environment)
    return Container(host, f"{host}.{template['spec']['subdomain']}", command, environment)
