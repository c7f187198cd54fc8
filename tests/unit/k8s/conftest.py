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
SCRIPTS = {"kubectl": "get_kubectl.sh", "helm": "get_kubectl.sh", "promtool": "get_promtool.sh"}


def tool(name):
    """Returns the path of a command; skips the test if there is none."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not there: launch/{SCRIPTS[name]}")
    return found


def render(folder):
    """Returns the objects that kustomize makes of a folder, in order."""
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=300
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
