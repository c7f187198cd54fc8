"""Podman, the image and the Job, once for all tests here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ..unit.k8s import controllers
from . import image as images
from . import podman as podmen

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    why = podmen.missing()
    if why:
        pytest.skip(why)
    kept = os.environ.get("DISTCKPT_PODS_FOLDER")
    found = podmen.Podman(kept or tmp_path_factory.mktemp("podman"))
    try:
        found("info")
    except AssertionError as error:
        pytest.skip(f"podman does not work here: {error}")
    yield found
    found.close(keep=bool(kept))


@pytest.fixture(scope="session")
def image(podman):
    return images.build(podman)


def rendered(folder):
    """Returns {kind: object}, as kustomize renders a folder of k8s."""
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    if not kubectl:
        pytest.skip("kubectl is not there: launch/get_kubectl.sh")
    text = subprocess.run(
        [kubectl, "kustomize", ROOT / "k8s" / folder],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    return {found["kind"]: found for found in yaml.safe_load_all(text)}


@pytest.fixture(scope="session")
def manifest():
    """The Job of k8s/base."""
    return rendered("base")["Job"]


@pytest.fixture(scope="session")
def train_job():
    """The Job that Kubeflow Trainer and JobSet make of k8s/trainer."""
    found = rendered("trainer")
    job_set = controllers.job_set(found["TrainingRuntime"], found["TrainJob"])
    return controllers.job(job_set)


@pytest.fixture
def volume(podman, request):
    """A new folder for checkpoints that belongs to the group of the pods (fsGroup)."""
    folder = podman.folder / "volumes" / request.node.name[:60]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chown(folder, 0, 1000)
    folder.chmod(0o2775)
    return folder
