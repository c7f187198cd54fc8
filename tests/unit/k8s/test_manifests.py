"""The manifests in k8s/: rendered by kustomize, checked against schemas and against ourselves."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest

from . import rules
from .conftest import K8S, VARIANTS

ROOT = K8S.parent
VERSIONS = ("1.31", "1.34", "1.37")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_valid_to_the_last_field(rendered, variant, version):
    for kind, found in rendered(variant).items():
        if kind == "JobSet":
            job = copy.deepcopy(found["spec"]["replicatedJobs"][0]["template"])
            found = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **job}
        elif kind == "TFJob":
            template = copy.deepcopy(found["spec"]["tfReplicaSpecs"]["Worker"]["template"])
            metadata = {"name": "x", **template["metadata"]}
            found = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}
        kubernetes_validate.validate(found, version, strict=True)


def test_the_schemas_know_no_other_fields(rendered):
    broken = copy.deepcopy(rendered("base")["Job"])
    broken["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_a_job_set_has_published_fields_only(rendered):
    found = rendered("jobset")["JobSet"]
    assert rules.unknown_fields(found, rules.JOB_SET) == []
    broken = copy.deepcopy(found)
    broken["spec"]["failurePolicy"]["rules"][0]["onExitCodes"] = []
    unknown = [".spec.failurePolicy.rules[0].onExitCodes"]
    assert rules.unknown_fields(broken, rules.JOB_SET) == unknown
    for rule in found["spec"]["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    # <jobset>-<replicated job>-<number>-<index> is a host name of 63 characters at the most.
    assert len(f"{found['metadata']['name']}-workers-0-9999") <= 63


def test_a_tf_job_has_published_fields_only(rendered):
    found = rendered("tfjob")["TFJob"]
    assert rules.unknown_fields(found, rules.TF_JOB) == []
    broken = copy.deepcopy(found)
    broken["spec"]["cleanPodPolicy"] = "All"
    assert rules.unknown_fields(broken, rules.TF_JOB) == [".spec.cleanPodPolicy"]
    (container,) = rules.pods_of(rendered("tfjob"))["spec"]["containers"]
    assert container["name"] == "tensorflow"  # the operator looks for these names
    assert [port["name"] for port in container["ports"]] == ["tfjob-port"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_wrong(rendered, variant):
    assert rules.wrong(rendered(variant)) == []


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
    r"metadata|labels|matchLabels|image|resources|affinity|enableServiceLinks|^PersistentVolumeClaim"
    r".spec.resources|backoffLimit|ttlSeconds|runAs(User|Group)|fsGroup|sizeLimit|initContainers.0."
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
    ("path", "value"),
    [
        (("Job", "spec", "completions"), 4),
        (("Job", "spec", "template", "spec", "terminationGracePeriodSeconds"), 30),
        (("Job", "spec", "podFailurePolicy", "rules", 1, "onExitCodes", "values"), [2, 78]),
        (("Job", "spec", "template", "spec", "containers", 0, "env", 0, "value"), "2"),
        (("Job", "spec", "activeDeadlineSeconds"), None),
        (("Service", "spec", "publishNotReadyAddresses"), False),
        (("PersistentVolumeClaim", "spec", "accessModes"), ["ReadWriteOnce"]),
    ],
)
def test_a_mistake_is_noticed(rendered, path, value):
    broken = copy.deepcopy(rendered("base"))
    target = broken
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
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


@pytest.mark.cluster
def test_the_evaluator_sees_each_checkpoint_and_only_reads(tmp_path):
    directory = tmp_path / "digits"
    evaluate = [sys.executable, ROOT / "launch" / "evaluate_digits.py", "--directory", directory]
    train = [sys.executable, ROOT / "launch" / "digits.py", "--directory", directory]
    evaluator = subprocess.Popen(
        [*evaluate, "--timeout", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        trained = subprocess.run(
            [*train, "--steps", "60", "--save-every", "30"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert trained.returncode == 0, trained.stderr
        before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
        output = evaluator.communicate(timeout=100)[0]
    finally:
        evaluator.kill()
    accuracy = re.search(r"test accuracy (\S+) on", trained.stdout)[1]
    assert f"{directory}/ckpt-60: accuracy {accuracy} on" in output
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before
    assert evaluator.returncode == 0


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
    output = process.communicate(timeout=30)[0]
    assert process.returncode == code
    assert ("scontrol requeue 17" in output) == requeued
    assert "started launch -- python launch/digits.py --directory" in output


def test_the_batch_script_passes_the_signal_on_and_waits(tmp_path):
    process = start_batch_script(tmp_path, 75, wait="1")
    assert process.stdout.readline().startswith("started")
    time.sleep(0.3)
    process.terminate()
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 75
    assert "scontrol requeue 17" in output
