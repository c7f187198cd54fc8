"""What must be true of the rendered manifests, beyond what a schema can say.

Each rule returns what is wrong, or nothing; tests/unit/k8s/test_manifests.py also breaks the
manifests, one field after the other, and sees to it that the rules notice.
"""

from __future__ import annotations

from distckpt import exit_codes


def job_set_of(objects):
    """Returns the spec of the JobSet that starts the pods, or None."""
    if "JobSet" in objects:
        return objects["JobSet"]["spec"]
    runtime = objects.get("TrainingRuntime") or objects.get("ClusterTrainingRuntime")
    return runtime["spec"]["template"]["spec"] if runtime else None


def job_of(objects):
    """Returns the spec of the Job that starts the pods; None for a TFJob."""
    if "Job" in objects:
        return objects["Job"]["spec"]
    job_set = job_set_of(objects)
    return job_set["replicatedJobs"][0]["template"]["spec"] if job_set else None


def pods_of(objects):
    """Returns the template of the workers' pods."""
    job = job_of(objects)
    if job is not None:
        return job["template"]
    return objects["TFJob"]["spec"]["tfReplicaSpecs"]["Worker"]["template"]


def templates_of(objects):
    """Returns the templates of all pods."""
    deployment = objects.get("Deployment")
    return [pods_of(objects)] + ([deployment["spec"]["template"]] if deployment else [])


def is_runtime(objects):
    """Returns whether Kubeflow Trainer is still to make a JobSet of it."""
    return "TrainingRuntime" in objects or "ClusterTrainingRuntime" in objects


def environment(objects):
    """Returns the variables of the workers."""
    (container,) = pods_of(objects)["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def wrong_policy(objects):
    """Checks that the job's policy is what the exit codes mean."""
    job = job_of(objects)
    if job is None:
        retry = environment(objects).get("DISTCKPT_RETRY_CODE", "0")
        policy = objects["TFJob"]["spec"]["tfReplicaSpecs"]["Worker"]["restartPolicy"]
        if policy != "ExitCode" or not 128 <= int(retry) <= 255:
            yield "what is worth another try is not above 127"
        return
    rules = {
        rule["action"]: rule["onExitCodes"]
        for rule in job["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    useless = [exit_codes.USAGE, exit_codes.CONFIGURATION]
    useless += [exit_codes.NOT_EXECUTABLE, exit_codes.NOT_FOUND]
    for action, codes in (("FailJob", useless), ("Ignore", list(exit_codes.RETRY))):
        if rules.get(action) != {"operator": "In", "values": codes}:
            yield f"{action} is not for {codes}"
    first = job["podFailurePolicy"]["rules"][0]
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    if first != {"action": "Ignore", "onPodConditions": [disrupted]}:
        yield "evictions are not ignored first"
    if pods_of(objects)["spec"].get("restartPolicy") != "Never":
        yield "podFailurePolicy demands restartPolicy Never"
    if job.get("completionMode") != "Indexed":
        yield "the pods have no index"
    if job.get("podReplacementPolicy") != "Failed":
        yield "two pods of one index may run at a time"


def wrong_job_set(objects):
    """Checks that a JobSet does not start again what is useless, and gives the pods their names."""
    job_set = job_set_of(objects)
    policy = job_set["failurePolicy"]
    rules = [(rule["action"], rule["onJobFailureReasons"]) for rule in policy["rules"]]
    if rules != [("FailJobSet", ["PodFailurePolicy"])] or not policy.get("maxRestarts"):
        yield "the JobSet starts again what is useless, or nothing"
    network = job_set["network"]
    if not network["enableDNSHostnames"] or not network["publishNotReadyAddresses"]:
        yield "the pods have no names"


def wrong_deadline(objects):
    """Checks that what is started again for nothing ends some day."""
    job = job_of(objects) or objects["TFJob"]["spec"]["runPolicy"]
    if not job.get("activeDeadlineSeconds"):
        yield "the job may be started again for ever"


def wrong_numbers(objects):
    """Checks that what is said twice is the same."""
    job, said = job_of(objects), environment(objects)
    if job is not None and not is_runtime(objects):
        if not str(job["completions"]) == str(job["parallelism"]) == said.get("DISTCKPT_WORKERS"):
            yield "completions, parallelism and DISTCKPT_WORKERS differ"
        subdomain = pods_of(objects)["spec"].get("subdomain")
        if subdomain is None or subdomain != said.get("DISTCKPT_SERVICE"):
            yield "subdomain and DISTCKPT_SERVICE differ"
        if "JobSet" in objects:
            if objects["JobSet"]["spec"]["network"]["subdomain"] != subdomain:
                yield "JobSet's Service is another one"
        else:
            yield from _wrong_service(objects["Service"], subdomain, pods_of(objects))
    grace = pods_of(objects)["spec"].get("terminationGracePeriodSeconds")
    if str(grace) != said.get("DISTCKPT_GRACE_SECONDS"):
        yield "terminationGracePeriodSeconds and DISTCKPT_GRACE_SECONDS differ"
    ports = {
        port["name"]: port["containerPort"]
        for container in pods_of(objects)["spec"]["containers"]
        for port in container["ports"]
    }
    metrics = ports.pop("metrics", None)
    if "PodMonitor" in objects:
        yield from _wrong_metrics(objects, metrics)
    if list(ports.values()) != [int(said.get("DISTCKPT_PORT", 2222))]:
        yield "the port is not the one that distckpt takes"


def _wrong_service(service, subdomain, pods):
    spec = service["spec"]
    if service["metadata"]["name"] != subdomain or spec["clusterIP"] != "None":
        yield "the Service is not headless, or has another name"
    if not spec.get("publishNotReadyAddresses"):
        yield "pods that are not ready have no name"
    if not spec["selector"].items() <= pods["metadata"]["labels"].items():
        yield "the Service selects other pods"


def _wrong_metrics(objects, port):
    arguments = (
        objects["TrainJob"]["spec"]["trainer"]["args"]
        if is_runtime(objects)
        else pods_of(objects)["spec"]["containers"][0]["args"]
    )
    if arguments[-2:] != ["--metrics-port", str(port)]:
        yield "the program serves metrics at another port"
    if [e["port"] for e in objects["PodMonitor"]["spec"]["podMetricsEndpoints"]] != ["metrics"]:
        yield "Prometheus asks at another port"
    policy = objects["NetworkPolicy digits-metrics"]["spec"]
    if policy["ingress"][0]["ports"] != [{"protocol": "TCP", "port": port}]:
        yield "Prometheus may not ask at that port"
    workers = objects["NetworkPolicy"]["spec"]["podSelector"]
    if not workers == policy["podSelector"] == objects["PodMonitor"]["spec"]["selector"]:
        yield "Prometheus asks other pods"


def wrong_network(objects):
    """Checks that the workers can be reached by each other alone, at their port."""
    spec = objects["NetworkPolicy"]["spec"]
    workers = spec["podSelector"]
    labels = dict(pods_of(objects)["metadata"]["labels"])
    if "TrainJob" in objects:
        labels["jobset.sigs.k8s.io/jobset-name"] = objects["TrainJob"]["metadata"]["name"]
    if not workers["matchLabels"] or not workers["matchLabels"].items() <= labels.items():
        yield "the policy is for other pods"
    allowed = {"from": [{"podSelector": workers}]}
    if not any("nvidia.com/gpu" in limits for limits in _limits(objects)):  # NCCL uses any port
        allowed["ports"] = [{"protocol": "TCP", "port": 2222}]
    if spec != {"podSelector": workers, "policyTypes": ["Ingress"], "ingress": [allowed]}:
        yield "others may reach the workers, or the workers not each other"


def _limits(objects):
    return [c["resources"]["limits"] for c in pods_of(objects)["spec"]["containers"]]


def wrong_runtime(objects):
    """Checks what Kubeflow Trainer demands of a runtime, and of a TrainJob."""
    (replicated,) = job_set_of(objects)["replicatedJobs"]
    label = "trainer.kubeflow.org/trainjob-ancestor-step"
    if replicated["template"]["metadata"]["labels"].get(label) != "trainer":
        yield "Trainer does not find the workers"
    names = [container["name"] for container in pods_of(objects)["spec"]["containers"]]
    if replicated["replicas"] != 1 or names != ["node"]:
        yield "Trainer refuses the runtime"
    if "TrainJob" in objects:
        yield from _wrong_train_job(objects)


def _wrong_train_job(objects):
    job, runtime = objects["TrainJob"]["spec"], objects["TrainingRuntime"]
    if list(objects).index("TrainingRuntime") > list(objects).index("TrainJob"):
        yield "the TrainJob comes before its runtime"
    if job["runtimeRef"] != {"kind": runtime["kind"], "name": runtime["metadata"]["name"]}:
        yield "the runtime is another one"
    if "trainer" not in job or "command" in job["trainer"]:
        yield "the workers' number does not arrive"
    if not job.get("activeDeadlineSeconds"):
        yield "the training may be started again for ever"


def wrong_security(objects):
    """Checks that no pod may do more than it must."""
    for template in templates_of(objects):
        spec = template["spec"]
        if spec.get("automountServiceAccountToken") is not False:
            yield "a pod has a token for Kubernetes"
        context = spec["securityContext"]
        if not all(context.get(name) for name in ("runAsNonRoot", "runAsUser", "fsGroup")):
            yield "a pod may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "a pod has no seccomp profile"
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            restricted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if container.get("securityContext") != restricted:
                yield f"{container['name']} may do more than it must"
            resources = container.get("resources", {})
            if not resources.get("requests") or "memory" not in resources.get("limits", {}):
                yield f"{container['name']} does not say what it needs"
            if "/tmp" not in {mount["mountPath"] for mount in container["volumeMounts"]}:
                yield f"{container['name']} has no place for temporary files"


def wrong_storage(objects):
    """Checks that all workers share the volume, try it out first, and evaluators only read."""
    spec = pods_of(objects)["spec"]
    claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if v["name"] == "checkpoints"]
    if claims != [{"claimName": "checkpoints"}]:
        yield "the checkpoints are not on the shared volume"
    (check,) = spec["initContainers"]
    if check["command"][:2] != ["distckpt", "doctor"]:
        yield "the volume is not tried out"
    if not is_runtime(objects):
        arguments = spec["containers"][0]["args"]
        if check["command"][2] != arguments[arguments.index("--directory") + 1]:
            yield "what is tried out is not where the checkpoints go"
    if "Deployment" in objects:
        evaluator = objects["Deployment"]["spec"]["template"]["spec"]
        mounts = evaluator["containers"][0]["volumeMounts"]
        if not all(m.get("readOnly") for m in mounts if m["name"] == "checkpoints"):
            yield "the evaluator may write"


RULES = (wrong_policy, wrong_deadline, wrong_numbers, wrong_security, wrong_storage)


def wrong(objects):
    """Returns all that is wrong."""
    rules = [*RULES, *([wrong_runtime] if is_runtime(objects) else [])]
    if job_set_of(objects):
        rules.append(wrong_job_set)
    if "ClusterTrainingRuntime" not in objects:  # a policy belongs to a namespace
        rules.append(wrong_network)
    return [text for rule in rules for text in rule(objects)]
