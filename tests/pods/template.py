"""The pod of a Job in k8s, as Kubernetes would make it, for podman to play.

What Kubernetes does when it starts pod i of an Indexed Job: the host name, JOB_COMPLETION_INDEX and
the other variables, the volume of the claim. What podman 4.3 cannot do, and is left out here, is
`LEFT_OUT`.
"""

from __future__ import annotations

import copy

from ..unit.k8s import controllers

# Pod: fields that podman does not know, or takes for something else.
LEFT_OUT = {
    "affinity": "there is one node",
    "subdomain": "podman's own DNS knows the names instead, as aliases of the network",
    "enableServiceLinks": "there are no services",
    "terminationGracePeriodSeconds": "given to `podman stop`",
    "ports": "podman would open them on the host",
}


def pod(job, index, *, image, volume, workers, arguments=(), variables=None, host=None):
    """Returns pod `index` of the Job `job`.

    Args:
      job: The Job, as kustomize renders it, or as JobSet makes it.
      index: The pod's index.
      image: The image's name here.
      volume: The folder that is the claim's volume.
      workers: The number of pods.
      arguments: More arguments for the program.
      variables: More variables, which win; None takes one away.
      host: The host name, if it is to be another one.
    """
    template = copy.deepcopy(job["spec"]["template"])
    spec = template["spec"]
    for name in LEFT_OUT:
        spec.pop(name, None)
    name = host or f"{job['metadata']['name']}-{index}"
    spec["hostname"] = name
    (worker,) = spec["containers"]
    worker["args"] += map(str, arguments)
    for container in [*spec["initContainers"], worker]:
        container["image"], container["imagePullPolicy"] = image, "Never"
        container.pop("ports", None)
        told = controllers.variables(container, template["metadata"]["labels"], index)
        if "DISTCKPT_WORKERS" in told:
            told["DISTCKPT_WORKERS"] = str(workers)
        if container is worker:
            told |= variables or {}
        told = {name: value for name, value in told.items() if value is not None}
        container["env"] = [{"name": name, "value": value} for name, value in told.items()]
        for part in ("command", "args"):
            if part in container:
                container[part] = controllers.expand(container[part], told)
    for one in spec["volumes"]:
        if "persistentVolumeClaim" in one:
            del one["persistentVolumeClaim"]
            one["hostPath"] = {"path": str(volume), "type": "Directory"}
    metadata = {"name": name, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
