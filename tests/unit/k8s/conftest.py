"""What kustomize makes of the folders in k8s/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

K8S = Path(__file__).parents[3] / "k8s"
VARIANTS = ("base", "overlays/nvme", "overlays/evaluator", "jobset", "tfjob")
_KUBECTL = Path(sys.executable).with_name("kubectl")


def kubectl():
    """Returns the path of kubectl; skips the test if there is none."""
    found = str(_KUBECTL) if _KUBECTL.exists() else shutil.which("kubectl")
    if not found:
        pytest.skip("kubectl is not there: launch/get_kubectl.sh")
    return found


@pytest.fixture(scope="session")
def rendered():
    """Returns get(variant): the objects by kind, as kustomize renders them."""
    made = {}

    def get(variant):
        if variant not in made:
            done = subprocess.run(
                [kubectl(), "kustomize", str(K8S / variant)],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert "deprecated" not in done.stderr.lower()
            objects = list(yaml.safe_load_all(done.stdout))
            made[variant] = {found["kind"]: found for found in objects}
            assert len(made[variant]) == len(objects)
        return made[variant]

    return get
