"""Kubeflow Trainer: the workers learn from the runtime and the TrainJob who they are."""

from __future__ import annotations

import copy
import json
import re
import sys

import pytest
import yaml

from distckpt.launcher.pod import PodSpec
from distckpt.launcher.pod.environment import find

from ...pods import template
from ..kit.pods import SHOW, Pods, ends, needs_namespaces
from . import controllers, rules
from .conftest import COMPONENTS, K8S
from .validation import VERSIONS, validate


def made(objects, **trainer):
    """Returns the JobSet and the Job that the controllers make, with a TrainJob of these fields."""
    train_job = copy.deepcopy(objects["TrainJob"])
    train_job["spec"]["trainer"] |= trainer
    job_set = controllers.job_set(objects["TrainingRuntime"], train_job)
    return job_set, controllers.job(job_set)


def test_num_nodes_of_the_train_job_is_the_number_of_workers(rendered):
    objects = rendered("trainer")
    for count in (1, 2, 5):
        job_set, job = made(objects, numNodes=count)
        for found in (job_set, job):
            validate(found, VERSIONS[-1])
        pods = controllers.containers(job)
        assert len(pods) == count
        launch = pods[0].command[: pods[0].command.index("--")]
        assert launch == ["distckpt", "launch", "--replicas", str(count)]


def test_num_nodes_of_the_runtime_counts_if_the_train_job_has_none(rendered):
    objects = copy.deepcopy(rendered("trainer"))
    del objects["TrainJob"]["spec"]["trainer"]["numNodes"]
    assert len(controllers.containers(made(objects)[1])) == 1
    objects["TrainingRuntime"]["spec"]["mlPolicy"]["numNodes"] = 4
    pods = controllers.containers(made(objects)[1])
    assert {pod.command[3] for pod in pods} == {"4"}
    assert len(pods) == 4


def test_each_worker_finds_who_it_is_and_where_the_others_are(rendered):
    pods = controllers.containers(made(rendered("trainer"), numNodes=3)[1])
    addresses = [f"digits-node-0-{index}.digits:2222" for index in range(3)]
    assert [f"{pod.address}:2222" for pod in pods] == addresses
    for index, pod in enumerate(pods):
        options = {"replicas": int(pod.command[3]), "service": pod.variables["DISTCKPT_SERVICE"]}
        spec = PodSpec(command=pod.command[5:], **options)
        config = json.loads(find(pod.variables, pod.host, spec).config)
        assert config["cluster"]["worker"] == addresses
        assert config["task"] == {"type": "worker", "index": index}


def test_two_train_jobs_of_one_runtime_have_services_of_their_own(rendered):
    objects = copy.deepcopy(rendered("trainer"))
    objects["TrainJob"]["metadata"]["name"] = "other"
    pods = controllers.containers(made(objects)[1])
    assert {pod.variables["DISTCKPT_SERVICE"] for pod in pods} == {"other"}
    assert pods[1].address == "other-node-0-1.other"


@needs_namespaces
def test_the_pods_of_a_train_job_find_each_other(rendered, tmp_path):
    """The command and the environment that Trainer makes, on hosts of those names."""
    found = controllers.containers(
        made(rendered("trainer"), args=[sys.executable, "-c", SHOW], numNodes=3)[1]
    )
    pods = Pods(tmp_path)
    try:
        pods.names(*(pod.address for pod in found))
        started = [pods.run(pod.host, pod.command, pod.variables) for pod in found]
        for index, (code, output, messages) in enumerate(ends(started)):
            assert code == 0, messages
            assert output == f"{index}\n"
            assert f"this is worker {index}, according to an Indexed Job" in messages
            assert "all 3 workers have come" in messages
    finally:
        pods.close()


@pytest.mark.parametrize("variant", ["trainer", "base"])
def test_the_container_tests_play_the_same_pods(rendered, variant):
    objects = rendered(variant)
    job = made(objects)[1] if variant == "trainer" else objects["Job"]
    for index, expected in enumerate(controllers.containers(job)):
        pod = template.pod(job, index, image="x", volume="/v", workers=3)
        validate(pod, VERSIONS[-1])
        (worker,) = pod["spec"]["containers"]
        assert pod["spec"]["hostname"] == expected.host
        assert [*worker["command"], *worker["args"]] == expected.command
        assert {one["name"]: one["value"] for one in worker["env"]} == expected.variables
        (check,) = pod["spec"]["initContainers"]
        assert check["command"][2] == "/checkpoints/digits"


@needs_namespaces
def test_a_train_job_without_a_trainer_stops_retries(rendered, tmp_path):
    objects = copy.deepcopy(rendered("trainer"))
    del objects["TrainJob"]["spec"]["trainer"]
    assert "the workers' number does not arrive" in rules.wrong(objects)
    job_set = controllers.job_set(objects["TrainingRuntime"], objects["TrainJob"])
    (pod,) = controllers.containers(controllers.job(job_set))
    pods = Pods(tmp_path)
    try:
        pods.names()
        command = [*pod.command, sys.executable, "-c", SHOW]
        ((code, _, messages),) = ends([pods.run(pod.host, command, pod.variables)])
    finally:
        pods.close()
    assert code == 2  # the policy of the pods does not start them again
    assert "'$(PET_NNODES)' is not a valid integer" in messages


def test_the_job_that_comes_out_is_that_of_the_base(rendered):
    """But for the names, and what Trainer itself decides."""
    base = rendered("base")["Job"]["spec"]
    job = made(rendered("trainer"), numNodes=3)[1]["spec"]
    same = set(base) - {"template", "ttlSecondsAfterFinished"}
    assert {key: job[key] for key in same} == {key: base[key] for key in same}
    ours, theirs = base["template"]["spec"], job["template"]["spec"]
    other = {"containers", "initContainers", "subdomain", "affinity"}
    assert {k: v for k, v in ours.items() if k not in other} == {
        k: v for k, v in theirs.items() if k not in other
    }
    ours, theirs = ours["containers"][0], theirs["containers"][0]
    for part in ("args", "image", "resources", "securityContext", "volumeMounts"):
        assert theirs[part] == ours[part]


def test_the_volume_is_tried_out_where_the_train_job_of_that_name_keeps_checkpoints(rendered):
    job = made(rendered("trainer"))[1]
    (check,) = job["spec"]["template"]["spec"]["initContainers"]
    (variable,) = check["env"]
    fields = {f"metadata.labels['{controllers.JOB_SET}']": "digits"}
    name = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
    directory = check["command"][2].replace(f"$({variable['name']})", name)
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert directory == arguments[arguments.index("--directory") + 1]


def test_the_train_job_of_the_documentation_runs_with_the_cluster_s_runtime(rendered):
    text = (K8S.parent / "docs" / "kubernetes.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (found,) = [yaml.safe_load(block) for block in blocks if "kind: TrainJob" in block]
    for version in VERSIONS:
        validate(found, version)
    runtime = rendered("trainer-cluster")["ClusterTrainingRuntime"]
    reference = {"kind": "ClusterTrainingRuntime"} | found["spec"]["runtimeRef"]
    assert reference == {"kind": runtime["kind"], "name": runtime["metadata"]["name"]}
    pods = controllers.containers(controllers.job(controllers.job_set(runtime, found)))
    assert pods[2].address == "run-1-node-0-2.run-1"
    assert pods[2].command[:5] == ["distckpt", "launch", "--replicas", "3", "--"]


@pytest.mark.parametrize("components", [(), COMPONENTS])
def test_the_cluster_s_runtime_is_the_same_and_comes_alone(rendered, components):
    (kind,) = rendered("trainer-cluster", *components)
    assert kind == "ClusterTrainingRuntime"
    cluster = rendered("trainer-cluster", *components)[kind]
    assert cluster["spec"] == rendered("trainer", *components)["TrainingRuntime"]["spec"]
