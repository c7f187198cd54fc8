"""Who a process is: by each way to tell it, and by none."""

from __future__ import annotations

import json

import pytest

from distckpt.errors import ConfigurationError
from distckpt.launcher.pod.environment import find
from distckpt.launcher.pod.spec import PodSpec

CLUSTER = {"worker": ["a:1", "b:1"]}


def spec(**options):
    return PodSpec(command=["true"], **options)


def config(kind="worker", index=1, cluster=CLUSTER, **more):
    text = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    return {"TF_CONFIG": text, **more}


def workers_of(identity):
    return json.loads(identity.config)["cluster"]["worker"]


def test_tf_config_is_taken_as_it_is():
    found = find(config(), "x", spec())
    assert (found.name, found.source) == ("worker 1", "TF_CONFIG")
    assert found.config == config()["TF_CONFIG"]


@pytest.mark.parametrize(
    ("kind", "index", "name"),
    [("chief", 0, "chief"), ("worker", "1", "worker 1"), ("ps", 0, "ps 0"), ("evaluator", 0, None)],
)
def test_tf_config_may_have_other_tasks(kind, index, name):
    cluster = {"chief": ["c:1"], "worker": ["a:1", "b:1"], "ps": ["p:1"]}
    assert find(config(kind, index, cluster), "x", spec()).name == (name or "evaluator 0")


def test_an_indexed_job_names_its_pods_by_index():
    found = find({"JOB_COMPLETION_INDEX": "2"}, "digits-2", spec(replicas=3, service="net", port=7))
    assert found.name == "worker 2"
    assert workers_of(found) == ["digits-0.net:7", "digits-1.net:7", "digits-2.net:7"]
    assert json.loads(found.config)["task"] == {"type": "worker", "index": 2}


def test_tf_config_without_a_cluster_says_nothing_of_the_job():
    lone = {"TF_CONFIG": json.dumps({"task": {"type": "worker", "index": 0}})}
    found = find({**lone, "JOB_COMPLETION_INDEX": "1"}, "d-1", spec(replicas=2, service="net"))
    assert (found.name, workers_of(found)) == ("worker 1", ["d-0.net:2222", "d-1.net:2222"])


def test_a_job_set_has_another_number_in_the_name():
    found = find({"JOB_COMPLETION_INDEX": "1"}, "run-w-0-1", spec(replicas=2, service="run"))
    assert workers_of(found) == ["run-w-0-0.run:2222", "run-w-0-1.run:2222"]


def test_a_stateful_set_tells_it_by_the_host_name():
    found = find({}, "train-1", spec(replicas=2, service="train"))
    assert found.name == "worker 1"
    assert workers_of(found) == ["train-0.train:2222", "train-1.train:2222"]


def test_slurm_tells_it_by_rank():
    step = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    here = {"SLURM_PROCID": "1", "SLURM_NODEID": "1", "SLURM_LOCALID": "0"}
    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    found = find({**step, **here, **job}, "n2", spec())
    assert (found.name, found.run_id) == ("worker 1", "slurm-7-0-0")
    assert workers_of(found) == ["n1:2222", "n2:2222"]
    with pytest.raises(ConfigurationError, match="Slurm has started 2 tasks"):
        find({**step, **here}, "n2", spec(replicas=3))


def test_one_worker_needs_no_service_and_no_name():
    found = find({"JOB_COMPLETION_INDEX": "0"}, "whatever", spec(replicas=1))
    assert workers_of(found) == ["localhost:2222"]


INDEX = {"JOB_COMPLETION_INDEX": "1"}
PODS = {"replicas": 3, "service": "net"}


@pytest.mark.parametrize(
    ("environ", "host", "options", "text"),
    [
        ({}, "laptop", {}, "Cannot tell which worker of which job this is"),
        ({}, "train-3", {}, "Cannot tell which worker"),
        ({}, "laptop", PODS, "Cannot tell which worker"),
        ({"TF_CONFIG": "{"}, "x", {}, "TF_CONFIG: it is not valid JSON"),
        ({"TF_CONFIG": "[]"}, "x", {}, "must be a JSON object"),
        ({"TF_CONFIG": "{}"}, "x", {}, "there is no TF_CONFIG with a cluster"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "x", {}, "does not say which task"),
        (config(index=2), "x", {}, "this process is worker 2, and the cluster has 2"),
        (config(cluster={"worker": "a:1"}), "x", {}, "must be a list like"),
        (config(JOB_COMPLETION_INDEX="0"), "x", {}, "JOB_COMPLETION_INDEX is 0"),
        ({**INDEX, "SLURM_PROCID": "0"}, "d-1", PODS, "Unset the stale one"),
        (INDEX, "d-1", {}, "the number of workers is unknown"),
        (INDEX, "d-1", {"replicas": 3}, "but the Service through which"),
        (INDEX, "d-2", PODS, "does not end in -1"),
        (INDEX, "laptop", PODS, "does not end in -1"),
        (INDEX, "d-1", {"replicas": 1, "service": "net"}, "there are only 1"),
        ({"JOB_COMPLETION_INDEX": "3"}, "d-3", PODS, r"there are only 3 \(0 to 2\)"),
        ({"JOB_COMPLETION_INDEX": "x"}, "d-1", PODS, "must be a number, got 'x'"),
        ({}, "train-3", PODS, "there are only 3"),
    ],
)
def test_what_makes_no_sense_is_refused_with_advice(environ, host, options, text):
    with pytest.raises(ConfigurationError, match=text):
        find(environ, host, spec(**options))


def test_tf_config_and_an_index_that_agree_are_welcome():
    assert find(config(JOB_COMPLETION_INDEX="1"), "x", spec()).name == "worker 1"
    cluster = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    assert find(config(index=1, cluster=cluster, JOB_COMPLETION_INDEX="2"), "x", spec()).name


@pytest.mark.parametrize(
    "options",
    [{"replicas": 0}, {"port": 0}, {"port": 70000}, {"peer_deadline": -1}, {"grace": float("nan")}],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ConfigurationError):
        spec(**options)
