"""The image: Debian with its Python as the base, and the project's Containerfile on top.

No registry is asked. The packages come from Debian and from the index that pip is set up for.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = "localhost/distckpt-base:bookworm"
# What the image is made of.
SOURCES = ("k8s/Containerfile", "constraints.txt", "pyproject.toml", "launch", "distckpt")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def build(podman):
    """Returns the name of the image, which is built if it is not there."""
    name = f"localhost/digits:{_fingerprint()}"
    if not _exists(podman, name):
        if not _exists(podman, BASE):
            _make_base(podman)
        podman(
            *["build", "--network", "host", "--file", ROOT / "k8s" / "Containerfile"],
            *["--build-arg", f"BASE_IMAGE={BASE}", "--tag", name, ROOT],
            timeout=1200,
        )
    return name


def _exists(podman, name):
    return bool(podman("images", "--quiet", name).strip())


def _make_base(podman):
    with tempfile.TemporaryDirectory(dir=podman.folder) as folder:
        system = Path(folder, "system")
        packages = "--include=python3,python3-pip,ca-certificates"
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", system],
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            pytest.skip(f"debootstrap has failed: {done.stdout[-300:]}{done.stderr[-300:]}")
        if CERTIFICATES.exists():  # the host may trust an authority of its own
            shutil.copy(CERTIFICATES, system / CERTIFICATES.relative_to("/"))
        archive = Path(folder, "base.tar")
        subprocess.run(
            ["tar", "-C", system, "-cf", archive, "--exclude=./proc/*", "--exclude=./sys/*", "."],
            check=True,
            timeout=400,
        )
        # Debian's pip wants to be told that nobody else installs Python packages here.
        changes = ["ENV PIP_BREAK_SYSTEM_PACKAGES=1", f"ENV PIP_CERT={CERTIFICATES}"]
        changes += ["ENV PATH=/usr/local/bin:/usr/bin:/bin"]
        podman(
            "import",
            *(word for change in changes for word in ("--change", change)),
            *[archive, BASE],
            timeout=400,
        )


def _fingerprint():
    digest = hashlib.sha256()
    for source in SOURCES:
        path = ROOT / source
        for file in sorted(path.rglob("*") if path.is_dir() else [path]):
            if file.is_file() and file.suffix != ".pyc":
                digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
