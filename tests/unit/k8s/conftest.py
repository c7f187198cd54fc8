"""What kustomize makes of the folders in k8s/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

K8S = Path(__file__).parents[3] / "k8s"
VARIANTS = ("base", "jobset", "trainer", "trainer-cluster", "tfjob")
COMPONENTS = tuple(sorted(path.name for path in (K8S / "components").iterdir()))
_KUBECTL = Path(sys.executable).with_name("kubectl")


def kubectl():
    """Returns the path of kubectl; skips the test if there is none."""
    found = str(_KUBECTL) if _KUBECTL.exists() else shutil.which("kubectl")
    if not found:
        pytest.skip("kubectl is not there: launch/get_kubectl.sh")
    return found


def render(folder):
    """Returns the objects that kustomize makes of a folder, in order."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()
    return list(yaml.safe_load_all(done.stdout))


def by_kind(objects):
    """Returns {kind: object}; a second object of a kind has its name, too: "kind name"."""
    found = {}
    for one in objects:
        kind = one["kind"]
        found[kind if kind not in found else f"{kind} {one['metadata']['name']}"] = one
    assert len(found) == len(objects)
    return found


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Returns get(variant, *components): the objects by kind, as kustomize renders them."""
    made = {}

    def get(variant, *components):
        key = (variant, components)
        if key not in made:
            made[key] = by_kind(render(with_components(components) / variant))
        return made[key]

    def with_components(components):
        if not components:
            return K8S
        copied = tmp_path_factory.mktemp("k8s") / "k8s"
        shutil.copytree(K8S, copied)
        base = copied / "base" / "kustomization.yaml"
        wanted = f"components: [{', '.join(f'../components/{name}' for name in components)}]"
        text = base.read_text()
        assert "\ncomponents: []\n" in text
        base.write_text(text.replace("components: []", wanted))
        return copied

    return get
