"""The pod of the Job in k8s/base, as Kubernetes would make it, for podman to play.

What Kubernetes does when it starts pod i of an Indexed Job: the host name, JOB_COMPLETION_INDEX,
the volume of the claim. What podman 4.3 cannot do, and is left out here, is `LEFT_OUT`.
"""

from __future__ import annotations

import copy

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
      job: The Job, as kustomize renders it.
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
    for container in [*spec["initContainers"], *spec["containers"]]:
        container["image"], container["imagePullPolicy"] = image, "Never"
        container.pop("ports", None)
    (worker,) = spec["containers"]
    worker["args"] += map(str, arguments)
    told = {variable["name"]: variable["value"] for variable in worker["env"]}
    told |= {"JOB_COMPLETION_INDEX": str(index), "DISTCKPT_WORKERS": str(workers)}
    told |= variables or {}
    worker["env"] = [{"name": n, "value": v} for n, v in told.items() if v is not None]
    for one in spec["volumes"]:
        if "persistentVolumeClaim" in one:
            del one["persistentVolumeClaim"]
            one["hostPath"] = {"path": str(volume), "type": "Directory"}
    metadata = {"name": name, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
