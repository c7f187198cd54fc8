"""The Helm chart: it makes what kustomize makes of the base, and what its values say."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from . import rules
from .conftest import K8S, by_kind, tool
from .validation import VERSIONS, validate

# A job of somebody's own, with everything that can be said.
VALUES = {
    "image": "registry.example/you/train:7",
    "workers": 5,
    "args": ["python", "train.py", "--directory", "/checkpoints/run-1"],
    "directory": "/checkpoints/run-1",
    "graceSeconds": 300,
    "deadlineSeconds": 7200,
    "env": {"TF_CPP_MIN_LOG_LEVEL": "2"},
    "nodeSelector": {"pool": "training"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "queue": "training",
}
GPU = {"requests": {"cpu": "4"}, "limits": {"memory": "64Gi", "nvidia.com/gpu": 2}}


def helm(*arguments):
    """Runs helm."""
    command = [tool("helm"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def objects(name="digits", **values):
    """Returns what the chart makes of some values, by kind."""
    done = helm("template", name, K8S, *(f"--set-json={k}={json.dumps(values[k])}" for k in values))
    assert done.returncode == 0, done.stderr
    return by_kind([found for found in yaml.safe_load_all(done.stdout) if found])


def test_helm_has_nothing_to_say_against_the_chart():
    done = helm("lint", "--strict", K8S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


def test_the_chart_makes_what_kustomize_makes_of_the_base(rendered):
    assert objects() == rendered("base")


def test_the_chart_with_gpus_makes_what_the_component_makes(rendered):
    wanted = rendered("base", "gpu")
    resources = wanted["Job"]["spec"]["template"]["spec"]["containers"][0]["resources"]
    tolerations = wanted["Job"]["spec"]["template"]["spec"]["tolerations"]
    assert objects(resources=resources, tolerations=tolerations) == wanted


@pytest.mark.parametrize("more", [{}, {"resources": GPU}])
def test_what_the_values_say_is_in_every_place(more):
    found = objects("run", **VALUES, **more)
    for version in VERSIONS:
        for one in found.values():
            validate(one, version)
    assert rules.wrong(found) == []
    assert {one["metadata"]["name"] for one in found.values()} == {"run"}
    assert "digits" not in json.dumps(found)
    assert found["Job"]["spec"]["completions"] == 5
    assert found["Job"]["spec"]["activeDeadlineSeconds"] == 7200
    assert found["Job"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    pods = found["Job"]["spec"]["template"]["spec"]
    assert pods["terminationGracePeriodSeconds"] == 300
    assert pods["nodeSelector"] == {"pool": "training"}
    assert {c["image"] for c in [*pods["initContainers"], *pods["containers"]]} == {VALUES["image"]}
    assert rules.environment(found)["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_another_claim_is_mounted():
    volumes = objects(claim="mine")["Job"]["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["persistentVolumeClaim"] == {"claimName": "mine"}
    assert "PersistentVolumeClaim" not in objects(claim="mine")


@pytest.mark.parametrize(
    ("name", "value"),
    [("worker", 4), ("workers", 0), ("args", []), ("directory", "/tmp"), ("graceSeconds", "long")],
)
def test_a_value_that_makes_no_sense_is_refused(name, value):
    done = helm("template", "digits", K8S, f"--set-json={name}={json.dumps(value)}")
    assert done.returncode != 0
    assert f"'{name}'" in done.stderr or f"/{name}'" in done.stderr


def test_the_chart_has_no_copy_of_the_manifests(tmp_path):
    done = helm("package", K8S, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        ["tar", "tzf", next(tmp_path.glob("*.tgz"))], capture_output=True, text=True, check=True
    )
    files = {name.partition("/")[2] for name in listed.stdout.split()}
    base = {f"base/{name}.yaml" for name in ("job", "network", "service")}
    chart = {"Chart.yaml", "values.yaml", "values.schema.json", ".helmignore"}
    assert files == base | chart | {"templates/job.yaml", "templates/network.yaml"}
