"""The manifests in k8s/: rendered by kustomize, checked against schemas and against ourselves."""

from __future__ import annotations

import copy
import importlib.metadata
import os
import re
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

from ..kit import warm
from . import rules
from .conftest import COMPONENTS, K8S, VARIANTS
from .validation import VERSIONS, validate

ROOT = K8S.parent


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", ["volume", *VARIANTS])
def test_every_object_is_valid_to_the_last_field(rendered, variant, version):
    for found in rendered(variant).values():
        validate(found, version)


@pytest.mark.parametrize(
    ("variant", "kind", "path"),
    [
        ("base", "Job", "template.spec.containers.0.volumeMount"),
        ("jobset", "JobSet", "failurePolicy.rules.0.onExitCodes"),
        ("jobset", "JobSet", "replicatedJobs.0.template.spec.template.spec.containers.0.imag"),
        ("trainer", "TrainJob", "trainer.numWorkers"),
        ("trainer", "TrainingRuntime", "mlPolicy.tensorflow"),
        ("trainer", "TrainingRuntime", "template.spec.replicatedJobs.0.template.spec.completion"),
        ("trainer-cluster", "ClusterTrainingRuntime", "template.spec.network.subDomain"),
        ("tfjob", "TFJob", "cleanPodPolicy"),
        ("tfjob", "TFJob", "tfReplicaSpecs.Worker.template.spec.containers.0.imag"),
    ],
)
def test_the_schemas_know_no_other_fields(rendered, variant, kind, path):
    broken = copy.deepcopy(rendered(variant)[kind])
    *parents, name = path.split(".")
    target = broken["spec"]
    for key in parents:
        target = target[int(key) if key.isdecimal() else key]
    target[name] = "x"
    with pytest.raises(jsonschema.ValidationError, match=name):
        validate(broken, VERSIONS[-1])


def test_a_job_set_has_names_that_fit(rendered):
    found = rendered("jobset")["JobSet"]
    for rule in found["spec"]["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    # <jobset>-<replicated job>-<number>-<index> is a host name of 63 characters at the most.
    assert len(f"{found['metadata']['name']}-workers-0-9999") <= 63


def test_a_tf_job_has_the_names_that_the_operator_looks_for(rendered):
    (container,) = rules.pods_of(rendered("tfjob"))["spec"]["containers"]
    assert container["name"] == "tensorflow"
    assert [port["name"] for port in container["ports"]] == ["tfjob-port"]


# --- The volume -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_deleting_a_job_never_deletes_the_checkpoints(rendered, variant):
    """What `kubectl delete -k` names, and what a job owns, has no volume among it."""
    objects = rendered(variant, *COMPONENTS)
    assert not {"PersistentVolumeClaim", "PersistentVolume", "Namespace"} & objects.keys()
    assert "volumeClaimPolicies" not in (rules.job_set_of(objects) or {})
    volumes = {volume["name"]: volume for volume in rules.pods_of(objects)["spec"]["volumes"]}
    claim = rendered("volume")["PersistentVolumeClaim"]
    assert volumes["checkpoints"] == {
        "name": "checkpoints",
        "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
    }


def test_the_volume_is_for_many_pods_and_comes_alone(rendered):
    assert list(rendered("volume")) == ["PersistentVolumeClaim"]
    claim = rendered("volume")["PersistentVolumeClaim"]["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]
    assert claim["resources"]["requests"]["storage"]


# --- The jobs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_wrong(rendered, variant):
    assert rules.wrong(rendered(variant)) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_changes_every_kind_of_job(rendered, component):
    """The base has it; and what the others copy of the base is as it is there."""
    base = rules.pods_of(rendered("base", component))["spec"]
    for variant in VARIANTS:
        objects = rendered(variant, component)
        for found in objects.values():
            validate(found, VERSIONS[-1])
        assert rules.wrong(objects) == []
        pods = rules.pods_of(objects)["spec"]
        for part in ("volumes", "tolerations", "nodeSelector", "terminationGracePeriodSeconds"):
            assert pods.get(part) == base.get(part)
        ours, theirs = base["containers"][0], pods["containers"][0]
        for part in ("resources", "volumeMounts", "image"):
            assert theirs[part] == ours[part]
    assert rendered("base", component) != rendered("base")


@pytest.mark.parametrize(
    ("variant", "kind"),
    [("base", "Job"), ("jobset", "JobSet"), ("trainer", "TrainJob"), ("tfjob", "TFJob")],
)
def test_a_queue_is_named_by_the_job_alone_and_kueue_suspends_it_itself(rendered, variant, kind):
    label = "kueue.x-k8s.io/queue-name"
    objects = rendered(variant, "kueue")
    assert objects[kind]["metadata"]["labels"][label]
    others = [found for name, found in objects.items() if name != kind]
    assert label not in str([*others, objects[kind]["spec"]])
    assert "suspend" not in objects[kind]["spec"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_holds_a_job_up_is_left_out_on_purpose(rendered, variant):
    objects = rendered(variant, *COMPONENTS)
    assert "PodDisruptionBudget" not in objects
    (container,) = rules.pods_of(objects)["spec"]["containers"]
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & container.keys()
    assert "the manifests do not have" in (ROOT / "docs" / "kubernetes.md").read_text()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_worker_with_a_gpu_has_shared_memory_and_may_run_where_gpus_are(rendered, variant):
    spec = rules.pods_of(rendered(variant, "gpu"))["spec"]
    (worker,) = spec["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    (mount,) = [mount for mount in worker["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert taint in spec["tolerations"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_have_tags_that_do_not_move(rendered, variant):
    for template in rules.templates_of(rendered(variant, *COMPONENTS)):
        spec = template["spec"]
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            assert re.search(r":[\w.-]+$", container["image"])
            assert not container["image"].endswith(":latest")
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", (K8S / "Containerfile").read_text(), re.M)[1]
    assert re.search(r":\d+\.\d+\.\d+-", base)


@pytest.mark.parametrize("variant", ["jobset", "tfjob"])
def test_the_other_kinds_start_the_same_program(rendered, variant):
    base, other = rendered("base"), rendered(variant)
    for part in ("args", "command", "image", "resources", "securityContext", "volumeMounts"):
        ours = rules.pods_of(base)["spec"]["containers"][0][part]
        assert rules.pods_of(other)["spec"]["containers"][0][part] == ours
    assert "Job" not in other
    assert "Service" not in other  # JobSet and the training operator make their own


# --- The rules themselves -------------------------------------------------------------------------


def leaves(value, path=()):
    """Yields the paths of all single values."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from leaves(part, (*path, index))
    else:
        yield path


# What may be otherwise without harm.
FREE = re.compile(
    r"metadata|labels|affinity|image|resources|enableServiceLinks|backoffLimit|"
    r"ttlSeconds|runAs(User|Group)|fsGroup|sizeLimit|initContainers.0."
    r"(command.[34]|name|volumeMounts)|containers.0.(name|command|args.[01]|volumeMounts)|HOME|"
    r"Service.spec.ports|apiVersion|kind|volumes.1|env.\d.name|env.3|ports.0.name|volumes.0.name"
)


def test_whatever_must_be_so_cannot_be_changed_unnoticed(rendered):
    missed = []
    objects = rendered("base")
    for path in leaves(objects):
        text = ".".join(map(str, path))
        if FREE.search(text):
            continue
        broken = copy.deepcopy(objects)
        target = broken
        for key in path[:-1]:
            target = target[key]
        old = target[path[-1]]
        target[path[-1]] = "other" if isinstance(old, str) else (not old if old is not None else 1)
        try:
            noticed = rules.wrong(broken)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError):
            continue
        if not noticed:
            missed.append(text)
    assert missed == []


@pytest.mark.parametrize(
    ("variant", "path", "value"),
    [
        ("base", "Job.spec.completions", 4),
        ("base", "Job.spec.template.spec.terminationGracePeriodSeconds", 30),
        ("base", "Job.spec.podFailurePolicy.rules.1.onExitCodes.values", [2, 78]),
        ("base", "Job.spec.template.spec.containers.0.env.0.value", "2"),
        ("base", "Job.spec.activeDeadlineSeconds", None),
        ("base", "Service.spec.publishNotReadyAddresses", False),
        ("base", "NetworkPolicy.spec.ingress.0.ports.0.port", 22),
        ("jobset", "JobSet.spec.failurePolicy.rules.0.action", "RestartJobSet"),
        ("jobset", "JobSet.spec.network.publishNotReadyAddresses", False),
        ("trainer", "TrainJob.spec.runtimeRef.name", "torch-distributed"),
        ("trainer", "TrainJob.spec.trainer.command", ["python3"]),
        ("trainer", "TrainJob.spec.activeDeadlineSeconds", None),
        ("trainer", "TrainingRuntime.spec.template.spec.replicatedJobs.0.replicas", 2),
        ("trainer", "TrainingRuntime.spec.template.spec.network.enableDNSHostnames", False),
    ],
)
def test_a_mistake_is_noticed(rendered, variant, path, value):
    broken = copy.deepcopy(rendered(variant))
    assert rules.wrong(broken) == []
    *parents, name = path.split(".")
    target = broken
    for key in parents:
        target = target[int(key) if key.isdecimal() else key]
    target[name] = value
    assert rules.wrong(broken)


# --- What the manifests start ---------------------------------------------------------------------


def test_the_image_has_what_the_manifests_start():
    text = (K8S / "Containerfile").read_text()
    copied = re.findall(r"^COPY (.*) /app/$", text, re.M)[0].split()
    ignored = (ROOT / ".containerignore").read_text().split()
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored
    started = {f"/app/{Path(path).name}" for path in copied}
    manifests = "".join(path.read_text() for path in K8S.rglob("*.yaml"))
    assert set(re.findall(r"/app/\w+\.py", manifests)) == started
    assert re.search(r"^ARG BASE_IMAGE=\S+$", text, re.M)


@pytest.mark.parametrize("there", [True, False])
def test_the_image_gets_the_tensorflow_that_was_asked_for_unless_it_has_one(tmp_path, there):
    """The command of the Containerfile, with a Python that only says what it is asked."""
    text = (K8S / "Containerfile").read_text()
    (extra,) = set(re.findall(r"TENSORFLOW=(tensorflow\[.*?\])", text))
    assert "and-cuda" in importlib.metadata.metadata("tensorflow").get_all("Provides-Extra")
    assert extra == "tensorflow[and-cuda]"
    command = re.search(r"^RUN (.*?[^\\])\n", text, re.M | re.S)[1]
    python = tmp_path / "python3"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -m ] || exit {0 if there else 1}\nprintf "%s\\n" "$@"\n'
    )
    python.chmod(0o755)
    asked = subprocess.run(
        ["sh", "-c", command],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TENSORFLOW": extra},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout.splitlines()
    assert asked[:3] == ["-m", "pip", "install"]
    assert asked[-1] == (".[quickstart,prometheus]" if there else extra)


@pytest.mark.cluster
def test_the_evaluator_sees_each_checkpoint_and_only_reads(tmp_path):
    directory = tmp_path / "digits"
    evaluate = [ROOT / "launch" / "evaluate_digits.py", "--directory", directory]
    train = [ROOT / "launch" / "digits.py", "--directory", directory]
    log = tmp_path / "log"
    evaluator = warm.start(evaluate, os.environ, os.getcwd(), str(log), str(log))
    try:
        command = [*train, "--steps", "60", "--save-every", "30"]
        trained = warm.run(command, env=os.environ, cwd=os.getcwd(), timeout=400)
        assert trained.returncode == 0, trained.stderr
        before = checkpoint_times(directory)
        accuracy = re.search(r"test accuracy (\S+) on", trained.stdout)[1]
        wanted, end = f"{directory}/ckpt-60: accuracy {accuracy} on", time.monotonic() + 150
        while wanted not in log.read_text():  # a busy machine starts both slowly
            assert evaluator.exitcode is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
    finally:
        evaluator.kill()
        evaluator.join(60)
    assert checkpoint_times(directory) == before


def checkpoint_times(directory):
    """When each file was changed, but for leases, which a reader takes while it reads."""
    paths = [path for path in directory.rglob("*") if "holds" not in path.parts]
    return {path: path.stat().st_mtime_ns for path in paths}


# --- Slurm ----------------------------------------------------------------------------------------

FAKE = {
    # As Slurm's: passes SIGTERM on to the workers, ends with the highest exit code.
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "distckpt": 'echo "started $*"; trap "exit $CODE" TERM; '
    'if [ -n "$WAIT" ]; then while :; do sleep 0.05; done; fi; exit $CODE',
    "scontrol": 'echo "scontrol $*"',
}


def start_batch_script(folder, code, wait=""):
    commands = folder / "bin"
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "venv" / "bin" / "activate").write_text("")
    commands.mkdir()
    for name, text in FAKE.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (commands / name).chmod(0o755)
    environment = {"PATH": f"{commands}:/usr/bin:/bin", "HOME": str(folder), "CODE": str(code)}
    environment |= {"SLURM_JOB_ID": "17", "WAIT": wait}
    return subprocess.Popen(
        [ROOT / "launch" / "slurm.sbatch"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("code", "requeued"),
    [(0, False), (69, True), (70, False), (75, True), (76, True), (78, False), (1, False)],
)
def test_the_batch_script_requeues_what_is_worth_it(tmp_path, code, requeued):
    """The script itself; Slurm's commands are stand-ins here."""
    process = start_batch_script(tmp_path, code)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == code
    assert ("scontrol requeue 17" in output) == requeued
    assert "started launch -- python launch/digits.py --directory" in output


def test_the_batch_script_passes_the_signal_on_and_waits(tmp_path):
    process = start_batch_script(tmp_path, 75, wait="1")
    assert process.stdout.readline().startswith("started")
    time.sleep(0.3)
    process.terminate()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 75
    assert "scontrol requeue 17" in output
